"""Which part of a model made a step wrong, and whether the step comes right without it."""
