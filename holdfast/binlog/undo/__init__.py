"""Transactions undone, or written as text."""
