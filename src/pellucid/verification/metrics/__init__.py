"""How well scores tell wrong steps from right ones, and how far their probabilities can be trusted."""
