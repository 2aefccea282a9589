"""Leading one cluster: look, decide, act."""
