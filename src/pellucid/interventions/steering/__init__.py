"""Steering: directions that move a model towards a concept, and how strong they are.

The names below are the public interface; see `docs/steering.md`.
"""

from pellucid.interventions.steering.ablation import (
    Candidate,
    DirectionalAblation,
    DirectionChoice,
    choose_direction,
)
from pellucid.interventions.steering.conditional import (
    Condition,
    ConditionalSteering,
    fit_condition,
)
from pellucid.interventions.steering.contrast import (
    CONTRASTS,
    actadd,
    actadd_by_position,
    caa,
    mean_difference,
    repe_pca,
)
from pellucid.interventions.steering.features import (
    FeatureScore,
    contrasting_features,
    feature_vector,
    output_scores,
    rank_features,
)
from pellucid.interventions.steering.strength import (
    Strength,
    median_norm,
    random_like,
    rho_of,
    strength_for,
    strengths_of,
)
from pellucid.interventions.steering.sweep import Sweep, SweepRow, sweep
from pellucid.interventions.steering.targeted import EffectMap, measure_effects
from pellucid.interventions.steering.vector import (
    PositionVectors,
    Steering,
    SteeringVector,
    load_vector,
)

__all__ = [
    "CONTRASTS",
    "Candidate",
    "Condition",
    "ConditionalSteering",
    "DirectionChoice",
    "DirectionalAblation",
    "EffectMap",
    "FeatureScore",
    "PositionVectors",
    "Steering",
    "SteeringVector",
    "Strength",
    "Sweep",
    "SweepRow",
    "actadd",
    "actadd_by_position",
    "caa",
    "choose_direction",
    "contrasting_features",
    "feature_vector",
    "fit_condition",
    "load_vector",
    "mean_difference",
    "measure_effects",
    "median_norm",
    "output_scores",
    "random_like",
    "rank_features",
    "repe_pca",
    "rho_of",
    "strength_for",
    "strengths_of",
    "sweep",
]
