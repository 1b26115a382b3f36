"""How well scores tell wrong steps from right ones, and how far probabilities can be trusted."""
