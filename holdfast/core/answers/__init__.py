"""What is told of a cluster: its status, where clients go, who may ask."""
