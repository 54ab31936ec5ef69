"""Server-rendered pages. No JSON in here, and no page in `supervisor.api`."""
