"""`supervisor demo` and `supervisor drill`: everything at once on loopback, as real processes.

Rule: nothing in here imports `worker`; it is started as a process of its own, like in production.
"""
