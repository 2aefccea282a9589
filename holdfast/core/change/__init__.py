"""A change of primary, step by step: failover, switchover, restart in place; and how a cluster begins."""
