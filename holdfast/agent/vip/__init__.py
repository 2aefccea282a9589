"""The virtual address that this host may hold."""
