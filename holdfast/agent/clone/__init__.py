"""The member's data replaced by a copy of another's; giving such a copy."""
