"""Replaces the member's data by a copy of another's; gives such a copy."""
