"""Leads one cluster: look, decide, act."""
