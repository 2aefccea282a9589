"""What ``holdfast check`` judges: facts in, findings out."""
