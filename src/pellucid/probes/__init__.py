"""Probes: linear readings of activations, with their controls."""

from pellucid.probes.controls import Part, Scored, scored
from pellucid.probes.features import FeatureProbe, fit_features
from pellucid.probes.fit import Line, fit
from pellucid.probes.metrics import Estimate, auroc, estimate, recall_at, separation, threshold_at
from pellucid.probes.probe import Probe, load_probe, save_probe
from pellucid.probes.reading import read_features, read_sites

__all__ = [
    "Estimate",
    "FeatureProbe",
    "Line",
    "Part",
    "Probe",
    "Scored",
    "auroc",
    "estimate",
    "fit",
    "fit_features",
    "load_probe",
    "read_features",
    "read_sites",
    "recall_at",
    "save_probe",
    "scored",
    "separation",
    "threshold_at",
]
