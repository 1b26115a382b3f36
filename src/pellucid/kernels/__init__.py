"""Sparse coding kernels: a readable definition of each, and fast versions that match it."""
