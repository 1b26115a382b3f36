"""Interventions: declared edits of a running model, with receipts that say what happened.

The names below are the public interface; see `docs/interventions.md`.
"""

from pellucid.interventions.generate import Generation, generate
from pellucid.interventions.operations import (
    Add,
    Clamp,
    Custom,
    PatchFrom,
    ProjectOut,
    Scale,
    Set,
)
from pellucid.interventions.receipts import Receipt
from pellucid.interventions.run import Run, edit, run, run_with_cache, run_with_hooks
from pellucid.interventions.spec import Gate, Intervention, content_hash, read_interventions
from pellucid.interventions.where import EVERYWHERE, Where, at, generated, span, window

__all__ = [
    "EVERYWHERE",
    "Add",
    "Clamp",
    "Custom",
    "Gate",
    "Generation",
    "Intervention",
    "PatchFrom",
    "ProjectOut",
    "Receipt",
    "Run",
    "Scale",
    "Set",
    "Where",
    "at",
    "content_hash",
    "edit",
    "generate",
    "generated",
    "read_interventions",
    "run",
    "run_with_cache",
    "run_with_hooks",
    "span",
    "window",
]
