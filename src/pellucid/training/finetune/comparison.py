"""Before and after on held-out text: what the replaced model predicts, and each layer's figures.

The same documents are read by the original model, by the model with all MLPs replaced before and
after, and with the same MLPs ablated to their mean; changes are paired by document.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.evaluation.agreement import DocumentSums, bootstrap_intervals, log_probabilities
from pellucid.evaluation.replaced import ORIGINAL, Variant, predict
from pellucid.evaluation.report import Prediction
from pellucid.evaluation.rows import DocumentBatch, EvaluationRows
from pellucid.harvest.fidelity import ErrorTotals, LayerFidelity
from pellucid.harvest.rows import RowBatch
from pellucid.models.model import LanguageModel
from pellucid.replacement.model import ReplacementModel
from pellucid.replacement.outputs import LayerOutput, layer_outputs
from pellucid.replacement.splice import MlpFunction, replaced_logits
from pellucid.training.finetune.drift import DriftMeter, LayerDrift
from pellucid.training.finetune.objective import Original, original_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A figure of the change, with its 95% interval from resampling documents."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """One layer before and after, on the original model's activations."""

    before: LayerFidelity
    after: LayerFidelity
    drift: LayerDrift


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What fine-tuning changed, on held-out text.

    Attributes:
        tokens: at which dictionaries were measured.
        documents: they came from.
        predictions: positions at which predictions were scored.
        original_ce: cross-entropy of the unmodified model.
        before: predictions with all MLPs replaced, before.
        after: the same, after.
        ce: change of the cross-entropy, after less before.
        ce_gap_closed: share of the cross-entropy's gap to the original that is gone.
        kl_closed: share of the KL divergence that is gone.
        layers: by layer, in order.
    """

    tokens: int
    documents: int
    predictions: int
    original_ce: float
    before: Prediction
    after: Prediction
    ce: Change
    ce_gap_closed: Change
    kl_closed: Change
    layers: tuple[LayerChange, ...]

    def to_json(self) -> dict[str, Any]:
        """Its plain form, as a file gives it back."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Comparison":
        """The inverse of `to_json`."""
        changes = [field.name for field in fields(cls) if field.type in (Change, "Change")]
        read: dict[str, Any] = {name: Change(**record[name]) for name in changes}
        for name in ("before", "after"):
            intervals = {key: tuple(edges) for key, edges in record[name]["intervals"].items()}
            read[name] = Prediction(**record[name] | {"intervals": intervals})
        layers = tuple(
            LayerChange(
                before=LayerFidelity(**layer["before"]),
                after=LayerFidelity(**layer["after"]),
                drift=LayerDrift.from_json(layer["drift"]),
            )
            for layer in record["layers"]
        )
        return cls(**record | read | {"layers": layers})


class _LayerMeter:
    """Figures of one layer's dictionary, before or after."""

    def __init__(self, layer: int, num_features: int) -> None:
        self._layer = layer
        self._fired = torch.zeros(num_features, dtype=torch.bool)
        self._active = 0.0
        self._totals: ErrorTotals | None = None

    def add(self, target: Float[Tensor, "N d"], output: LayerOutput) -> None:
        error = float((target - output.written).double().square().sum())
        totals = ErrorTotals.of(target, error)
        self._totals = totals if self._totals is None else self._totals + totals
        self._active += float(output.codes.l0().sum())
        self._fired[output.codes.indices[output.codes.values != 0].cpu()] = True

    def result(self) -> LayerFidelity:
        assert self._totals is not None
        return LayerFidelity(
            layer=self._layer,
            fvu=self._totals.fvu,
            l0=self._active / self._totals.tokens,
            dead=1 - float(self._fired.double().mean()),
        )


@torch.no_grad()
def compare(
    model: LanguageModel,
    before: DictionarySet,
    after: DictionarySet,
    rows: EvaluationRows,
    fitting: EvaluationRows,
    *,
    seed: int,
) -> Comparison:
    """Measure two sets of dictionaries of the same features side by side.

    Args:
        model: the model whose MLPs they replace.
        before: the dictionaries as they were.
        after: the trained ones.
        rows: the text to measure on.
        fitting: the text to take mean MLP outputs from.
        seed: of the resampling of documents.
    """
    layers = tuple(before.layers)
    means = _mean_functions(layers, fitting)
    start = ReplacementModel(model, before)
    variants: dict[Variant, Callable[[DocumentBatch], Tensor]] = {
        ("before", layers): _logits_of(start),
        ("after", layers): _logits_of(ReplacementModel(model, after)),
        ("mean", layers): lambda batch: replaced_logits(model, means, batch.ids, batch.mask),
    }
    sums = {variant: DocumentSums.zeros(rows.documents) for variant in [ORIGINAL, *variants]}
    meters = {layer: _meters(before, after, layer) for layer in layers}
    for batch in rows.batches():
        original = original_run(start, RowBatch(batch.ids, batch.mask, batch.text))
        sums[ORIGINAL].add(batch, original.log_probabilities, original.log_probabilities)
        for variant, logits in variants.items():
            other = log_probabilities(logits(batch))
            sums[variant].add(batch, original.log_probabilities, other)
        _add_layers(meters, before, after, original)
    count = sums[ORIGINAL].count.sum()
    return Comparison(
        tokens=rows.tokens,
        documents=rows.documents,
        predictions=int(count),
        original_ce=float(sums[ORIGINAL].nll.sum() / count),
        before=predict("before", layers, sums, seed=seed),
        after=predict("after", layers, sums, seed=seed),
        **_changes(sums, layers, seed=seed),
        layers=tuple(
            LayerChange(before=then.result(), after=now.result(), drift=drift.result())
            for then, now, drift in meters.values()
        ),
    )


_Meters = tuple[_LayerMeter, _LayerMeter, DriftMeter]


def _meters(before: DictionarySet, after: DictionarySet, layer: int) -> _Meters:
    features = before[layer].num_features
    drift = DriftMeter(before[layer], after[layer])
    return _LayerMeter(layer, features), _LayerMeter(layer, features), drift


def _add_layers(
    meters: Mapping[int, _Meters], before: DictionarySet, after: DictionarySet, original: Original
) -> None:
    old, new = (layer_outputs(each, original.values) for each in (before, after))
    for layer, (then, now, drift) in meters.items():
        target = original.values[before[layer].write_site]
        then.add(target, old[layer])
        now.add(target, new[layer])
        drift.add(old[layer].codes, new[layer].codes)


def _logits_of(replacement: ReplacementModel) -> Callable[[DocumentBatch], Tensor]:
    return lambda batch: replacement.logits(batch.ids, batch.mask)


def _mean_functions(layers: tuple[int, ...], fitting: EvaluationRows) -> dict[int, MlpFunction]:
    """By layer, the function that writes the MLP's mean output whatever it reads."""
    sums: dict[int, Tensor] = {}
    for batch in fitting.activations([Site("mlp_out", layer) for layer in layers]):
        for layer in layers:
            total = batch.values[Site("mlp_out", layer)].double().sum(dim=0)
            sums[layer] = sums[layer] + total if layer in sums else total
    return {layer: _constant((total / fitting.tokens).float()) for layer, total in sums.items()}


def _constant(value: Float[Tensor, " d"]) -> MlpFunction:
    return lambda x: value.to(x.dtype).expand(len(x), -1)


def _changes(
    sums: dict[Variant, DocumentSums], layers: tuple[int, ...], *, seed: int
) -> dict[str, Change]:
    then, now = sums["before", layers], sums["after", layers]
    kept = {"count": then.count, "original": sums[ORIGINAL].nll}
    kept |= {"nll_before": then.nll, "nll_after": now.nll}
    kept |= {"kl_before": then.kl, "kl_after": now.kl}
    totals = _change_figures({name: values.sum() for name, values in kept.items()})
    intervals = bootstrap_intervals(kept, _change_figures, seed=seed)
    return {
        name: Change(value=float(value), low=intervals[name][0], high=intervals[name][1])
        for name, value in totals.items()
    }


def _change_figures(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    gained = sums["nll_before"] - sums["nll_after"]
    return {
        "ce": -gained / sums["count"],
        "ce_gap_closed": gained / (sums["nll_before"] - sums["original"]),
        "kl_closed": 1 - sums["kl_after"] / sums["kl_before"],
    }
