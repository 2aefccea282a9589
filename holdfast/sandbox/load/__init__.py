"""Writers, and what they were told checked against the servers."""
