"""Where the clusters' records are kept."""
