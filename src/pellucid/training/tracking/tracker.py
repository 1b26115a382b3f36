"""What a tracker is: something that takes figures by the number of tokens trained on."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pellucid.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """The run whose curves are drawn.

    Attributes:
        folder: of the run.
        config: what decides its result (JSON-able).
        tokens: where it begins or goes on from.
        logged: the tokens of the last record that was logged before; 0 for none. More than `tokens`
            where a process died after its last checkpoint: what follows is logged a second time.
    """

    folder: Path
    config: Mapping[str, Any]
    tokens: int
    logged: int


class Tracker(ABC):
    """Takes the figures of a run. Made by `open`; `check` says beforehand whether it can be."""

    module: ClassVar[str]
    """The library's module; the extra that installs it has the tracker's name."""

    @classmethod
    @abstractmethod
    def open(cls, run: TrackedRun) -> "Tracker":
        """Begin the curves of a run, or go on with them."""

    @abstractmethod
    def log(self, tokens: int, figures: Mapping[str, float]) -> None:
        """Add a point to every curve, at `tokens`."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back."""


def library(name: str, tracker: type[Tracker]) -> ModuleType:
    """The library of the tracker called `name`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(tracker.module)
    except ImportError as error:
        raise ConfigError(
            f"tracking with {name} needs a package that is not installed ({error}); run "
            f"pip install 'pellucid[{name}]'"
        ) from error
