"""The programs of others that a sandbox runs, and their data directories."""
