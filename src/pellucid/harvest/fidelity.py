"""How well dictionaries reconstruct harvested activations: one definition for every report.

FVU is the streaming global ratio sum e^2 / sum (y - mean y)^2 over all the tokens measured: y the
target, e what the reconstruction misses, the mean taken per coordinate over the same tokens. It
shows a wrong mean, and does not depend on how the tokens were batched.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import DataError
from pellucid.core.types import AnySite, SparseCodes
from pellucid.dictionaries.base import Dictionary
from pellucid.harvest.activations import ActivationBatch
from pellucid.harvest.density import dense_share, density_histogram


@dataclass(slots=True, kw_only=True)
class ErrorTotals:
    """Sums over tokens that FVU is made of, in float64; those of two sets of tokens add up."""

    tokens: int
    error: float
    target: Float[Tensor, " D"]
    target_square: float

    @classmethod
    def of(cls, target: Float[Tensor, "N D"], squared_error: float) -> "ErrorTotals":
        """The sums of one batch whose reconstruction misses by `squared_error` in all."""
        target = target.double()
        return cls(
            tokens=len(target),
            error=squared_error,
            target=target.sum(dim=0),
            target_square=float(target.square().sum()),
        )

    def __add__(self, other: "ErrorTotals") -> "ErrorTotals":
        return ErrorTotals(
            tokens=self.tokens + other.tokens,
            error=self.error + other.error,
            target=self.target + other.target,
            target_square=self.target_square + other.target_square,
        )

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained.

        Raises:
            DataError: the target does not vary.
        """
        variance = self.target_square - float(self.target.square().sum()) / self.tokens
        if variance <= 0:
            raise DataError(
                f"what the dictionary should write is the same at all {self.tokens} tokens "
                "measured; measure on more text, or check the site"
            )
        return self.error / variance


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFidelity:
    """What one dictionary achieves.

    Attributes:
        layer: its layer.
        fvu: fraction of variance unexplained.
        l0: mean number of active features a token.
        dead: share of features that no token measured makes active.
        dense: share of features active on more than a tenth of the tokens; None, as `density` is,
            where single features were not counted.
        density: how many features fire how often, see `density_histogram`.
    """

    layer: int
    fvu: float
    l0: float
    dead: float
    dense: float | None = None
    density: list[int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Its plain form, without what was not counted."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class _LayerMeter:
    """The sums of one dictionary over the batches seen."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._totals: ErrorTotals | None = None
        self._fires: Int[Tensor, " F"] = torch.zeros(dictionary.num_features, dtype=torch.int64)

    def add(self, codes: SparseCodes, y: Float[Tensor, "N D"], error: Float[Tensor, "N D"]) -> None:
        totals = ErrorTotals.of(y, float(error.double().square().sum()))
        self._totals = totals if self._totals is None else self._totals + totals
        active = codes.indices[codes.values != 0].cpu()
        self._fires += torch.bincount(active, minlength=len(self._fires))

    def result(self, layer: int) -> LayerFidelity:
        assert self._totals is not None
        tokens = self._totals.tokens
        return LayerFidelity(
            layer=layer,
            fvu=self._totals.fvu,
            l0=int(self._fires.sum()) / tokens,
            dead=1 - int((self._fires > 0).sum()) / len(self._fires),
            dense=dense_share(self._fires, tokens),
            density=density_histogram(self._fires, tokens),
        )


def reconstructions(
    dictionaries: Mapping[int, Dictionary], values: Mapping[AnySite, Float[Tensor, "N D"]]
) -> dict[int, tuple[SparseCodes, Float[Tensor, "N D"]]]:
    """By layer, the codes of each dictionary and what is made of the site it writes first.

    Args:
        dictionaries: by layer; the layers of a cross-layer transcoder add up.
        values: activations of every site they read.
    """
    shared: dict[AnySite, Tensor] = {}
    own: dict[int, tuple[SparseCodes, Tensor]] = {}
    for layer in sorted(dictionaries):
        dictionary = dictionaries[layer]
        x = values[dictionary.read_site]
        codes = dictionary.encode(x)
        output, linear = dictionary.decode(codes), dictionary.skip(x)
        output = output if linear is None else output + linear
        own[layer] = codes, output + shared.get(dictionary.write_site, 0)
        for slot, site in enumerate(dictionary.write_sites[1:], 1):
            shared[site] = dictionary.decode(codes, slot) + shared.get(site, 0)
    return own


@torch.no_grad()
def measure_dictionaries(
    dictionaries: Mapping[int, Dictionary], stream: Iterable[ActivationBatch], *, tokens: int
) -> list[LayerFidelity]:
    """FVU, L0 and dead share of every dictionary, by layer, on the first `tokens` tokens or more.

    The FVU of a cross-layer transcoder's layer is that of the layer's output, to which the layers
    below write too.

    Args:
        dictionaries: by layer; the stream must carry their sites.
        stream: activations, such as an `ActivationStream` over held-out text.
        tokens: how many to measure on; whole batches are used.

    Raises:
        DataError: a target that does not vary.
    """
    meters = {layer: _LayerMeter(dictionary) for layer, dictionary in dictionaries.items()}
    seen = 0
    for batch in stream:
        for layer, (codes, output) in reconstructions(dictionaries, batch.values).items():
            y = batch.values[dictionaries[layer].write_site]
            meters[layer].add(codes, y, y - output)
        seen += len(batch.tokens)
        if seen >= tokens:
            break
    return [meters[layer].result(layer) for layer in sorted(meters)]
