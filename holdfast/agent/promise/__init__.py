"""What the promise rests on, watched at each look: hands may change it."""
