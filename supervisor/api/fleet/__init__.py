"""The fleet in one glance."""
