"""Incidents: from a target's leaving `healthy` to its being back."""
