"""Causal tracing: which places of a model carry what tells two prompts apart.

Patching sweeps, noise on a subject (ROME), path patching, screening by gradients, direct logit
attribution, and lenses; see `docs/causal_tracing.md`.
"""

from pellucid.interventions.tracing.contrast import Contrast, contrast, single
from pellucid.interventions.tracing.direct import DirectAttribution, components, direct_attribution
from pellucid.interventions.tracing.edges import EdgeScores, edge_scores
from pellucid.interventions.tracing.lens import LensResult, lens
from pellucid.interventions.tracing.paths import path_patching
from pellucid.interventions.tracing.result import SweepResult
from pellucid.interventions.tracing.rome import noise_tracing
from pellucid.interventions.tracing.screen import Screen, screen
from pellucid.interventions.tracing.sweep import patching_sweep
from pellucid.interventions.tracing.tuned_lens import (
    TunedLens,
    evaluate_lenses,
    load_tuned_lens,
    train_tuned_lens,
)

__all__ = [
    "Contrast",
    "DirectAttribution",
    "EdgeScores",
    "LensResult",
    "Screen",
    "SweepResult",
    "TunedLens",
    "components",
    "contrast",
    "direct_attribution",
    "edge_scores",
    "evaluate_lenses",
    "lens",
    "load_tuned_lens",
    "noise_tracing",
    "patching_sweep",
    "path_patching",
    "screen",
    "single",
    "train_tuned_lens",
]
