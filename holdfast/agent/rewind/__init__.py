"""Transactions undone, and tables compared afterwards."""
