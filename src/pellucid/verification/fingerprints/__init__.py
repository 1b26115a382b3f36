"""What a step's attribution graph looks like, in numbers that a classifier can read."""
