"""A synthetic benchmark whose features are known: what a dictionary recovers of them."""

from pellucid.evaluation.ground_truth.config import GroundTruthConfig
from pellucid.evaluation.ground_truth.recovery import Recovery, measure_recovery
from pellucid.evaluation.ground_truth.stream import GroundTruthStream
from pellucid.evaluation.ground_truth.truth import GroundTruth

__all__ = [
    "GroundTruth",
    "GroundTruthConfig",
    "GroundTruthStream",
    "Recovery",
    "measure_recovery",
]
