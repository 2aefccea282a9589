"""Writers, and the check of what they were told against the servers."""
