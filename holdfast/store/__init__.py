"""The stores, in which the clusters' records are kept."""
