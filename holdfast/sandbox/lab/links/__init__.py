"""The network of a lab, and its faults."""
