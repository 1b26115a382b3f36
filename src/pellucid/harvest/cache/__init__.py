"""Activations on disk: written once, verified, read in the order that live harvesting gives."""
