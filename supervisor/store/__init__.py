"""Redis as the supervisor uses it: thin async functions and Lua scripts; nothing is decided in here."""
