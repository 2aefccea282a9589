"""The history: what is kept of each failover, switchover and restart."""
