"""What the promise depends on, checked with each look: operators may change it by hand."""
