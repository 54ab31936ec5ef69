"""Overrides: an operator's verdict over a target or a provider."""
