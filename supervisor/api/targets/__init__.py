"""Targets: what can fail, its verdict and the evidence."""
