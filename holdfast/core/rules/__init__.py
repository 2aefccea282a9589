"""The rules: who counts, who may be primary, what is wrong."""
