"""Causal tracing: where in the computation an answer comes from."""
