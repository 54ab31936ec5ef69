"""The container's one link to Redis, and what a job sees of it."""
