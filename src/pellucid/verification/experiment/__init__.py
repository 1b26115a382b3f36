"""The honest experiment: every method on every regime, and what the graph adds."""
