"""A fleet on virtual time: the real engine, admission and local breakers; modelled sessions, providers, network.

`python -m tests.simulation` prints the table that docs/engine.md keeps. Everything is seeded: the same table again.
"""
