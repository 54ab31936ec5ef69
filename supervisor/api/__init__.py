"""The REST face of the supervisor: one folder per capability (endpoints, service, schemas)."""
