"""Strategies: which revision each worker obeys."""
