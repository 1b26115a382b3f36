"""Steering: directions that move a model towards a concept, and how strong they are."""
