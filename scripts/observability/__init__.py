"""The dashboard and the alert rules of docs/observability, made from the names of telemetry."""
