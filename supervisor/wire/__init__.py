"""Contract v1 between workers and supervisor: words, target ids, messages, codec, keys. No I/O in here."""
