"""What an agent reports about its member, in small values."""
