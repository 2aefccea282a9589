"""The daemon on a database host, the only one that touches the local server."""
