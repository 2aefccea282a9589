"""The agents that a manager observes and commands."""
