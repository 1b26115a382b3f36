"""What is known of steps: labels, places and readings, as one table that verifiers learn from."""
