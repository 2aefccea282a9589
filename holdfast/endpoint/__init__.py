"""Where clients connect: adapters that follow the primary."""
