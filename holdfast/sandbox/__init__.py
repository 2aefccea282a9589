"""A local cluster of real servers on loopback, for trying Holdfast out and for its tests."""
