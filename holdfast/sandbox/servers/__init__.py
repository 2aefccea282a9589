"""The third-party programs that a sandbox runs, and their data directories."""
