"""Spend-free looks at providers and their status pages, by the leader: hints, never proof of recovery."""
