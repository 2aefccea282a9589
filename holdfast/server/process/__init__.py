"""The server's process: how it is configured, started, found and ended."""
