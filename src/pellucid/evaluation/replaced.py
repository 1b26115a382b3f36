"""Predictions with MLPs replaced: all at once, one at a time, and from the first layer up."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pellucid.core.types import Site
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.evaluation.agreement import DocumentSums, bootstrap_intervals, log_probabilities
from pellucid.evaluation.report import Prediction, Replacement
from pellucid.evaluation.rows import EvaluationRows
from pellucid.models.model import LanguageModel
from pellucid.replacement.splice import MlpFunction, replaced_logits

Layers = tuple[int, ...]
Variant = tuple[str, Layers]
"""What stands in for the MLPs ("dictionary" or a baseline's name), and of which layers."""
ORIGINAL: Variant = ("original", ())


def stand_in_for_mlps(dictionaries: Mapping[int, Dictionary]) -> bool:
    """Whether each maps its layer's `mlp_in` to its `mlp_out`: together they replace the MLPs."""
    return all(
        (dictionary.read_site, dictionary.write_site)
        == (Site("mlp_in", layer), Site("mlp_out", layer))
        for layer, dictionary in dictionaries.items()
    )


def stand_alone(dictionaries: Mapping[int, Dictionary]) -> bool:
    """Whether each can replace its MLP without the others; a cross-layer transcoder's cannot."""
    return not any(isinstance(each, CrossLayerTranscoder) for each in dictionaries.values())


def variants(layers: Layers, *, layerwise: bool, alone: bool) -> list[Variant]:
    """Every run of the model that the report needs, each once.

    Args:
        layers: that have a dictionary.
        layerwise: also the first 1, 2, ... of them.
        alone: and each by itself.
    """
    sets = [layers]
    if layerwise:
        sets += [(layer,) for layer in layers if alone]
        sets += [layers[: count + 1] for count in range(len(layers))]
    wanted = [("zero", layers), ("linear", layers), ("random", layers)]
    wanted += [(name, chosen) for chosen in sets for name in ("dictionary", "mean")]
    return list(dict.fromkeys(wanted))


@torch.no_grad()
def score_variants(
    model: LanguageModel,
    functions: Mapping[str, Mapping[int, MlpFunction]],
    wanted: Sequence[Variant],
    rows: EvaluationRows,
    *,
    on_progress: Callable[[float], None],
) -> dict[Variant, DocumentSums]:
    """Sums of every wanted variant and of the original, over one pass of the text.

    Args:
        model: the language model.
        functions: for "dictionary" and each baseline, layer -> what stands in for its MLP.
        wanted: which variants.
        rows: the text.
        on_progress: told the share of the text that is done.
    """
    sums = {variant: DocumentSums.zeros(rows.documents) for variant in [ORIGINAL, *wanted]}
    done = 0
    for batch in rows.batches():
        original = log_probabilities(model.logits(batch.ids, batch.mask))
        sums[ORIGINAL].add(batch, original, original)
        for name, layers in wanted:
            chosen = {layer: functions[name][layer] for layer in layers}
            logits = replaced_logits(model, chosen, batch.ids, batch.mask)
            sums[name, layers].add(batch, original, log_probabilities(logits))
        done += int(batch.text.sum())
        on_progress(done / rows.tokens)
    return sums


def replacement_report(
    sums: Mapping[Variant, DocumentSums], layers: Layers, *, layerwise: bool, alone: bool, seed: int
) -> Replacement:
    """The figures of the dictionaries, all together and, if measured, by layer."""

    def prediction(chosen: Layers) -> Prediction:
        return predict("dictionary", chosen, sums, seed=seed)

    prefixes = [layers[: count + 1] for count in range(len(layers))] if layerwise else []
    return Replacement(
        all=prediction(layers),
        per_layer=[prediction((layer,)) for layer in layers] if layerwise and alone else [],
        cumulative=[prediction(prefix) for prefix in prefixes],
    )


def predict(
    name: str, layers: Layers, sums: Mapping[Variant, DocumentSums], *, seed: int
) -> Prediction:
    """The figures of one variant, with intervals over documents."""
    kept = {
        "original": sums[ORIGINAL].nll,
        "mean": sums["mean", layers].nll,
        "count": sums[ORIGINAL].count,
    }
    for part in ("nll", "kl", "same"):
        kept[part] = getattr(sums[name, layers], part)
    zero = sums.get(("zero", layers))
    if zero is not None:
        kept["zero"] = zero.nll
    totals = {part: values.sum() for part, values in kept.items()}
    figures = {part: float(value) for part, value in _figures(totals).items()}
    return Prediction(
        layers=list(layers), **figures, intervals=bootstrap_intervals(kept, _figures, seed=seed)
    )


def _figures(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Figures of a prediction from sums over positions, elementwise."""
    figures = {
        "ce": sums["nll"] / sums["count"],
        "kl": sums["kl"] / sums["count"],
        "top1": sums["same"] / sums["count"],
        "loss_recovered": _recovered(sums, "mean"),
    }
    if "zero" in sums:
        figures["loss_recovered_zero"] = _recovered(sums, "zero")
    return figures


def _recovered(sums: dict[str, Tensor], ablated: str) -> Tensor:
    return (sums[ablated] - sums["nll"]) / (sums[ablated] - sums["original"])
