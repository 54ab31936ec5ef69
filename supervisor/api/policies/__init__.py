"""Policies: the engine's rule numbers per scope."""
