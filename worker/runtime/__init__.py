"""The worker container: one AgentServer, one link, real job processes that run guarded agents."""
