"""Random faults in the lab, against clients that remember the answers they got: `checker.py` defines the claims."""
