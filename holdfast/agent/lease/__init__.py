"""The primary's lease on this host: who upholds it, and what ends the server when it is over."""
