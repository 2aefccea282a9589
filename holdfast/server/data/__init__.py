"""The data itself: backup, clone, digests, rewind."""
