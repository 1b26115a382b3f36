"""Stand-ins for the libraries of trackers: they remember what they are told."""

import sys
from types import ModuleType
from typing import Any

import pytest


class FakeWriter:
    """Of torch.utils.tensorboard; a list of writers, each with its points."""

    def __init__(self, *, log_dir: str, purge_step: int | None) -> None:
        self.log_dir, self.purge_step = log_dir, purge_step
        self.points: list[tuple[str, float, int]] = []
        self.closed = False

    def add_scalar(self, name: str, value: float, *, global_step: int) -> None:
        self.points.append((name, value, global_step))

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True


class FakeRun:
    """Of wandb."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.points: list[tuple[dict[str, float], int]] = []
        self.finished = False

    def log(self, figures: dict[str, float], *, step: int) -> None:
        self.points.append((figures, step))

    def finish(self) -> None:
        self.finished = True


def fake_tensorboard(monkeypatch: pytest.MonkeyPatch) -> list[FakeWriter]:
    made: list[FakeWriter] = []
    module = ModuleType("torch.utils.tensorboard")

    def writer(**settings: Any) -> FakeWriter:
        made.append(FakeWriter(**settings))
        return made[-1]

    module.SummaryWriter = writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return made


def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    made: list[FakeRun] = []
    module = ModuleType("wandb")

    def init(**settings: Any) -> FakeRun:
        made.append(FakeRun(settings))
        return made[-1]

    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return made
