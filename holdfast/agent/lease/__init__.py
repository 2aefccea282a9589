"""The primary's lease on this host: kept, vouched for, and what ends the server when it is over."""
