"""A local cluster of real servers on loopback, to try Holdfast out and for its tests."""
