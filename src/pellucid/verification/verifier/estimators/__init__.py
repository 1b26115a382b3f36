"""What turns a step's readings into the log-odds that it is wrong."""

from pellucid.core.registry import Registry
from pellucid.verification.verifier.estimators.boosting import (
    GradientBoosting,
    HistogramBoosting,
)
from pellucid.verification.verifier.estimators.estimator import Estimator
from pellucid.verification.verifier.estimators.logistic import Logistic

ESTIMATORS: Registry[type[Estimator]] = Registry(
    "estimator",
    {
        "boosting": GradientBoosting,
        "histogram": HistogramBoosting,
        "logistic": Logistic,
    },
)

__all__ = ["ESTIMATORS", "Estimator", "GradientBoosting", "HistogramBoosting", "Logistic"]
