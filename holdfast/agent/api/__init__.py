"""The agent's HTTP API, and its health checks for load balancers."""
