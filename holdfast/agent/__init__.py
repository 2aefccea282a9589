"""The daemon on a database host: the only process that touches the local server."""
