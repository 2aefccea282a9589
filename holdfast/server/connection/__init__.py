"""Sessions on the server, and the ways to reach it."""
