"""Introspection: what a model reports about edits of its own state, with every control."""
