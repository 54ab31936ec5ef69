"""The live stream: verdicts, strategies, faults and workers as server-sent events."""
