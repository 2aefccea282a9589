"""The rules as pure functions: data in, data out. Standard library only; no I/O, clock, logging or randomness."""
