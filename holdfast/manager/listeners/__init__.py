"""What is informed of events: history, hooks, reports, endpoints."""
