"""What the terms of the objective were before fine-tuning: what they are counted in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.core.types import AnySite, parse_site
from pellucid.harvest.rows import RowBatch
from pellucid.replacement.model import ReplacementModel
from pellucid.training.finetune.objective import original_run, scored, terms

_LEAST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The terms before, and the scale of activations.

    Attributes:
        kl: nats a position.
        errors: squared error a token, by layer.
        variances: squared distance from its mean of what each layer should write, a token.
        mean_squares: of a coordinate of what is read and written, by site.
    """

    kl: float
    errors: dict[int, float]
    variances: dict[int, float]
    mean_squares: dict[AnySite, float]

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""
        sites = {str(site): value for site, value in self.mean_squares.items()}
        return {
            "kl": self.kl,
            "errors": self.errors,
            "variances": self.variances,
            "mean_squares": sites,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Before":
        """The inverse of `to_json`, after a trip through a file."""
        by_layer = {
            name: {int(layer): value for layer, value in record[name].items()}
            for name in ("errors", "variances")
        }
        sites = {parse_site(name): value for name, value in record["mean_squares"].items()}
        return cls(kl=record["kl"], mean_squares=sites, **by_layer)


class _Moments:
    """Mean square and variance of the rows of one site."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | float = 0.0
        self._square = 0.0

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        self._count += len(rows)
        self._sum = self._sum + rows.sum(dim=0)
        self._square += float(rows.square().sum())

    @property
    def mean_square(self) -> float:
        return max(self._square / (self._count * len(torch.as_tensor(self._sum))), _LEAST)

    @property
    def variance(self) -> float:
        mean = torch.as_tensor(self._sum) / self._count
        return max(self._square / self._count - float(mean.square().sum()), _LEAST)


@torch.no_grad()
def measure_before(replacement: ReplacementModel, parts: Sequence[RowBatch]) -> Before:
    """Measure the terms on some text, in parts on the model's device."""
    dictionaries = replacement.dictionaries
    layers = dictionaries.layers
    moments: dict[AnySite, _Moments] = {}
    kl, errors = 0.0, dict.fromkeys(layers, 0.0)
    for part in parts:
        original = original_run(replacement, part)
        found = terms(replacement, part, original, with_kl=True)
        assert found.kl is not None
        kl += float(found.kl)
        for layer in layers:
            errors[layer] += float(found.errors[layer])
        for site, value in original.values.items():
            moments.setdefault(site, _Moments()).add(value)
    tokens = sum(int(part.text.sum()) for part in parts)
    positions = max(1, sum(scored(part.text) for part in parts))
    return Before(
        kl=max(kl / positions, _LEAST),
        errors={layer: max(error / tokens, _LEAST) for layer, error in errors.items()},
        variances={n: moments[dictionaries[n].write_site].variance for n in layers},
        mean_squares={site: each.mean_square for site, each in moments.items()},
    )
