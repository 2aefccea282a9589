"""Who is told of what happens: history, hooks, reports, endpoints."""
