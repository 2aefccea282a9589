"""A lab of hosts: a whole cluster in which every host has a network namespace of its own."""
