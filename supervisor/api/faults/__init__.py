"""Faults: one line each that a person can read."""
