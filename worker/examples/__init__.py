"""Agents to start from. Each runs with `worker dev --agent worker.examples.NAME:entrypoint`, with `console`, or alone.

They take the providers of `worker.settings` (GROQ_API_KEY, CARTESIA_API_KEY; WORKER_SIMULATOR_URL for stand-ins).
"""
