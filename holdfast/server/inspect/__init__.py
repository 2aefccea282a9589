"""What a check finds on a server, and what a server needs that is taken over."""
