"""Models whose MLPs are computed by dictionaries, and the frozen local form of one prompt."""
