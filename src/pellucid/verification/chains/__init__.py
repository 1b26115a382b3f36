"""Chains of thought: expressions, their steps, and exact labels by execution."""
