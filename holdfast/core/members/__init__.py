"""Members: which of them vote, how they come back, whose data is replaced."""
