"""Copies of the specimen that follow a wrong rule: confident errors whose place is known."""
