"""A change of primary, step by step: failover, switchover, restart in place; and the first start of a cluster."""
