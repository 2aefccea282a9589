"""The manager's commands in the agent: queued, checked, carried out."""
