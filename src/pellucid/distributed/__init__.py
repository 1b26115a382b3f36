"""Processes that work on one training together."""
