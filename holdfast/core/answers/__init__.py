"""Answers about a cluster: its status, where clients go, which callers may ask."""
