"""Pellucid makes language models see-through.

`load_model` -> `train` or `load_dictionaries` -> `evaluate` -> `trace` -> `interventions`. The
names below are the public interface; they are imported when first used, so that importing the
package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid import graphs, interventions
    from pellucid.api import load_dictionaries, load_model
    from pellucid.attribution.trace import Trace, trace
    from pellucid.evaluation import evaluate
    from pellucid.graphs.graph import AttributionGraph
    from pellucid.replacement.model import ReplacementModel
    from pellucid.training import train
    from pellucid.training.planning import plan

__all__ = [
    "AttributionGraph",
    "ReplacementModel",
    "Trace",
    "evaluate",
    "graphs",
    "interventions",
    "load_dictionaries",
    "load_model",
    "plan",
    "trace",
    "train",
]
__version__ = "0.1.0"

_HOMES = {
    "AttributionGraph": "pellucid.graphs.graph",
    "ReplacementModel": "pellucid.replacement.model",
    "Trace": "pellucid.attribution.trace",
    "evaluate": "pellucid.evaluation",
    "load_dictionaries": "pellucid.api",
    "load_model": "pellucid.api",
    "plan": "pellucid.training.planning",
    "trace": "pellucid.attribution.trace",
    "train": "pellucid.training",
}

_PACKAGES = ("graphs", "interventions")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"pellucid.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
