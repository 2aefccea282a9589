"""A sandbox on loopback."""
