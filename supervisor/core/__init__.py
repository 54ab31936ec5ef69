"""The pure core: decisions as functions over values. No asyncio, Redis, clock, random or logging in here."""
