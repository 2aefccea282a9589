"""Replication: following, acknowledging, waiting, and barring members from it."""
