"""The agents that a manager watches and commands."""
