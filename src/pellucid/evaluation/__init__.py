"""How good dictionaries are: their fidelity, and what the model still does with them in place."""

from pellucid.evaluation.evaluate import evaluate
from pellucid.evaluation.report import Evaluation

__all__ = ["Evaluation", "evaluate"]
