"""Configuration files: schema and loading, with errors that name the key."""
