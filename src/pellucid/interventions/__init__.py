"""Interventions: declared edits of a running model, with receipts that say what happened."""
