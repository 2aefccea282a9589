"""Undoes transactions, and compares tables afterwards."""
