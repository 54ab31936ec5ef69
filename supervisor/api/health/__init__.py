"""Health and readiness of this process."""
