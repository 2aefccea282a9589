"""What the agent remembers, and the server's files."""
