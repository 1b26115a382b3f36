"""Quality while a run goes on: the model with its MLPs replaced, on a little held-out text."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pellucid.core.types import Site
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.evaluation.replaced import ORIGINAL, score_variants, stand_in_for_mlps
from pellucid.evaluation.rows import EvaluationRows
from pellucid.harvest.fidelity import LayerFidelity, measure_dictionaries
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.replacement.functions import mlp_functions
from pellucid.training.sites import LayerSites

logger = logging.getLogger(__name__)

MEASURED_TOKENS = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the dictionaries are worth at one moment of their training.

    Attributes:
        layers: fidelity on held-out text, with the share of dense features.
        original_ce: cross-entropy of the unmodified model in nats a token; None, as `ce`, `kl` and
            `top1` are, where the dictionaries do not stand in for MLPs.
        ce: the same with the MLPs of all trained layers replaced at once.
        kl: KL(original || replaced) in nats a token.
        top1: share of positions with the same most likely token.
    """

    layers: tuple[LayerFidelity, ...]
    original_ce: float | None = None
    ce: float | None = None
    kl: float | None = None
    top1: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Its plain form, without what was not measured."""
        shares = {name: getattr(self, name) for name in ("original_ce", "ce", "kl", "top1")}
        measured = {name: value for name, value in shares.items() if value is not None}
        return measured | {"layers": [layer.to_json() for layer in self.layers]}


class Measurement:
    """Measures dictionaries in training on the same text every time. It changes nothing.

    What it cannot measure it says once, when it is made.

    Args:
        model: whose dictionaries they are.
        held_out: text apart from the training text.
        sites: of every layer's dictionary.
        every: tokens between two measurements; the end of a run is measured too.
        tokens: how many tokens to measure on.

    Raises:
        DataError: the text cannot be read.
    """

    def __init__(
        self,
        model: LanguageModel,
        held_out: TextSource,
        sites: Mapping[int, LayerSites],
        *,
        every: int,
        tokens: int = MEASURED_TOKENS,
    ) -> None:
        self._model, self._every = model, every
        self._rows = EvaluationRows(held_out, model, tokens=tokens)
        _say_what_is_left_out(model, sites)

    def due(self, before: int, after: int, total: int) -> bool:
        """Whether a step from `before` to `after` tokens of `total` is one to measure after."""
        return after // self._every > before // self._every or after == total

    def __call__(self, dictionaries: Mapping[int, Dictionary]) -> Measured:
        """The figures of these dictionaries."""
        sites = [site for d in dictionaries.values() for site in (d.read_site, d.write_site)]
        stream = self._rows.activations(list(dict.fromkeys(sites)))
        layers = tuple(measure_dictionaries(dictionaries, stream, tokens=self._rows.tokens))
        if not stand_in_for_mlps(dictionaries):
            return Measured(layers=layers)
        replaced = ("dictionary", tuple(dictionaries))
        sums = score_variants(
            self._model,
            {"dictionary": mlp_functions(DictionarySet("training", dictionaries), replaced[1])},
            [replaced],
            self._rows,
            on_progress=lambda share: None,
        )
        original, found = sums[ORIGINAL], sums[replaced]
        count = float(original.count.sum())
        return Measured(
            layers=layers,
            original_ce=float(original.nll.sum()) / count,
            ce=float(found.nll.sum()) / count,
            kl=float(found.kl.sum()) / count,
            top1=float(found.same.sum()) / count,
        )


def _say_what_is_left_out(model: LanguageModel, sites: Mapping[int, LayerSites]) -> None:
    for layer, pair in sites.items():
        if pair != (Site("mlp_in", layer), Site("mlp_out", layer)):
            logger.warning(
                "dictionaries from %s to %s do not stand in for MLPs: measuring leaves out the "
                "cross-entropy and KL of the replaced model",
                *pair,
            )
            return
    if len(sites) < model.n_layers:
        logger.warning(
            "%d of %d layers are trained: cross-entropy and KL are measured with the MLPs of those "
            "layers replaced, not of all",
            len(sites),
            model.n_layers,
        )
