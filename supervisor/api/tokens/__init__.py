"""Tokens: made once, shown once, kept as digests."""
