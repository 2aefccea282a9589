"""Observes the server: its process, its replication, its room on disk."""
