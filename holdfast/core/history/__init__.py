"""What is kept of each failover, switchover and restart."""
