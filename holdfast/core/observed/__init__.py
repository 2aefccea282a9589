"""What an agent tells of its member, in small values."""
