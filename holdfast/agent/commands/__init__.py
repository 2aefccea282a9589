"""The manager's commands on their way: queued, checked, carried out."""
