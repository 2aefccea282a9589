"""Members: who votes, how they come back, whose data is replaced."""
