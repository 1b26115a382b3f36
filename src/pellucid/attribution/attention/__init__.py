"""Attention in a graph: edges split by head, and why a head looked where it did."""
