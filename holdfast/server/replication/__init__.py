"""Replication: following, acknowledging, waiting, and keeping members from it."""
