"""Sessions: the calls. Nothing a caller said is in here."""
