"""Safety rules: which acknowledgements count, which member may become primary, what is wrong with the primary."""
