"""A chain watched while it is written: each step is scored as it is completed."""
