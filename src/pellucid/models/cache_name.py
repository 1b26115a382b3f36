"""What modules call their cache of keys and values: transformers 5.24 renamed it."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

CACHE_NAMES = ("cache", "past_key_values", "layer_past", "past_key_value")


def cache_name(module: nn.Module) -> str:
    """The argument of a module's forward that takes the cache.

    A model's output has the cache under the same name.
    """
    parameters = inspect.signature(module.forward).parameters
    return next((each for each in CACHE_NAMES if each in parameters), "past_key_values")


def cache_among(arguments: Mapping[str, Any]) -> Any:
    """The cache among the named arguments of a call; None without one."""
    return next((arguments[each] for each in CACHE_NAMES if each in arguments), None)
