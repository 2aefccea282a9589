"""Random faults in the lab, against clients that remember what they were told: `checker.py` says what is claimed."""
