"""Probes: linear readings of activations, with their controls."""
