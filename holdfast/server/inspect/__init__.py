"""What a check finds on a server, and what one needs that is taken over."""
