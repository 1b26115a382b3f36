"""The causal check of a graph: what it predicts for interventions, beside what they do.

The graph's most influential features are ablated and doubled one at a time. Three runs of the
real modules measure the effect: under the full freeze, where the graph's direct edges must be
exact; with attention patterns frozen; and in the real model. Effects are read at the explained
logits and, on the way there, at features of several layers, all in the same forwards. A matched
random control (another feature of the same layer, at the same position, with a change of the same
norm) shows what agreement means nothing.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from pellucid.attribution.agreement import agreement, spearman
from pellucid.attribution.depth import (
    Effects,
    Readout,
    answer_records,
    depth_records,
    downstream_rows,
)
from pellucid.attribution.derivatives import ANSWERS, first_order_effects
from pellucid.attribution.interventions import (
    control_deltas,
    feature_deltas,
    feature_probes,
    reaches,
    sources_of,
    targets_of,
)
from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.measure import Deltas, Freedom, Probes, probed_effects
from pellucid.attribution.predict import predicted_effects
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import LOGIT

__all__ = ["causal_check", "predicted_effects", "spearman"]

FACTORS = (0.0, 2.0)


@torch.no_grad()
def causal_check(
    linear: LinearModel, graph: AttributionGraph, *, features: int = 24, seed: int = 0
) -> dict[str, Any] | None:
    """Intervene on the graph's top features and compare with its predictions.

    Effects are on the most probable explained logit (less the mean logit). Correlations and signs
    compare effects per unit of change, so that ablating and doubling a feature do not agree by
    construction. Intervals are 95% bootstrap intervals over features.

    Beside these figures, `by_depth` has those of each third of the model intervened in and of each
    place read (`depth.depth_records`), `answers` compares with predictions that hold less fixed
    than the graph does (`depth.answer_records`), and `downstream` lists the effects on features.

    Args:
        linear: the affine map the graph was built from.
        graph: the graph, unpruned.
        features: how many features to check; further ones are checked for depth's sake alone.
        seed: of the control features and the bootstrap.

    Returns:
        Figures and one row an intervention; None when the graph has no feature.
    """
    sources, n_top = sources_of(graph, features)
    if n_top == 0:
        return None
    effects, frozen_max_error = _effects(linear, graph, sources, n_top, seed)
    logit, contrast = effects.readouts[:2]
    top = slice(0, n_top)
    result: dict[str, Any] = {
        "frozen_max_error": frozen_max_error,
        "n": n_top * len(FACTORS),
        "target": _target(graph, logit.node),
    }
    rng = np.random.default_rng(seed)
    for name in ("attention_frozen", "real", "random"):
        per_unit = logit.measured[name][:, top] / effects.change[:, None]
        predicted = np.broadcast_to(logit.total[top], per_unit.shape)
        result |= agreement(name, predicted, per_unit, rng=rng)
    result["median_effect_ratio"] = _ratio(
        logit.measured["real"][:, top], logit.measured["random"][:, top]
    )
    result["by_depth"] = depth_records(effects, rng)
    result["answers"] = answer_records(effects, rng)
    result["rows"] = _rows(effects, logit, contrast, n_top)
    result["downstream"] = downstream_rows(effects)
    return result


def _effects(
    linear: LinearModel,
    graph: AttributionGraph,
    sources: Int64[np.ndarray, " F"],
    n_top: int,
    seed: int,
) -> tuple[Effects, float]:
    """All effects of intervening on the sources, and the largest error under the full freeze."""
    logits = np.flatnonzero(graph.nodes.is_kind(LOGIT))
    targets = np.concatenate([logits, targets_of(graph, sources)])
    direct, total = predicted_effects(graph, targets, sources)
    tokens, runner_up = _tokens(linear, graph, logits)
    probes = feature_probes(linear, graph, tokens, targets[len(logits) :])
    deltas = feature_deltas(linear, graph, sources)
    generator = torch.Generator().manual_seed(seed)
    change = np.array(FACTORS) - 1.0
    measured = _measured(linear, deltas, control_deltas(linear, deltas, generator), probes, change)
    first_order: dict[str, np.ndarray] = {
        answer: first_order_effects(linear.local, deltas, probes, answer).double().numpy()
        for answer in ANSWERS
    }

    def readout(column: int, target: int, less: int | None = None) -> Readout:
        """One place; `less` is the column of the runner-up, for the contrast."""

        def at(values: Float64[np.ndarray, "*x P"]) -> np.ndarray:
            return values[..., column] - (0.0 if less is None else values[..., less])

        node = int(targets[target])
        is_logit = target < len(logits)
        own_value = float(graph.target_values[node])
        first = {answer: at(values) for answer, values in first_order.items()}
        return Readout(
            kind="contrast" if less is not None else "logit" if is_logit else "features",
            layer=int(graph.nodes.layer[node]),
            node=node if less is None else None,
            value=1.0 if is_logit else own_value,
            reaches=np.ones(len(sources), bool) if is_logit else reaches(graph, sources, node),
            direct=direct[target] if less is None else None,
            total=total[target] if less is None else first["features"],
            first_order=first,
            measured={name: at(values) for name, values in measured.items()},
        )

    rest = range(len(logits), len(targets))
    readouts = [readout(0, 0), readout(0, 0, runner_up)]
    readouts += [readout(target - len(logits) + len(tokens), target) for target in rest]
    frozen = measured["frozen"][:, :n_top, : len(logits)]
    edges = change[:, None, None] * direct[: len(logits), :n_top].T
    effects = Effects(
        graph=graph,
        sources=sources,
        top=np.arange(len(sources)) < n_top,
        change=change,
        readouts=tuple(readouts),
    )
    largest = max(float(np.abs(frozen).max()), 1e-12)
    return effects, float(np.abs(frozen - edges).max()) / largest


def _measured(
    linear: LinearModel,
    deltas: Deltas,
    control: Deltas,
    probes: Probes,
    change: Float64[np.ndarray, " factors"],
) -> dict[str, Float64[np.ndarray, "factors F P"]]:
    def measure(changes: Deltas, freedom: Freedom) -> np.ndarray:
        parts = [probed_effects(linear.local, changes.scaled(by), probes, freedom) for by in change]
        return torch.stack(parts).double().numpy()

    return {
        "frozen": measure(deltas, "frozen"),
        "attention_frozen": measure(deltas, "attention_frozen"),
        "real": measure(deltas, "real"),
        "random": measure(control, "real"),
    }


def _tokens(
    linear: LinearModel, graph: AttributionGraph, logits: np.ndarray
) -> tuple[torch.Tensor, int]:
    """The vocabulary ids to read, those of logit nodes first, and the column of the runner-up."""
    tokens = graph.nodes.index[logits].tolist()
    likeliest = linear.local.run.logits[-1].topk(2).indices.tolist()
    runner_up = next(token for token in likeliest if token != tokens[0])
    if runner_up not in tokens:
        tokens.append(runner_up)
    return torch.tensor(tokens), tokens.index(runner_up)


def _target(graph: AttributionGraph, node: int | None) -> dict[str, Any]:
    assert node is not None
    return {
        "position": int(graph.nodes.position[node]),
        "token_id": int(graph.nodes.index[node]),
        "label": graph.nodes.label[node],
    }


def _ratio(real: np.ndarray, control: np.ndarray) -> float | None:
    """Median |effect| of the features over that of their controls."""
    reference = float(np.median(np.abs(control)))
    return float(np.median(np.abs(real))) / reference if reference > 0 else None


def _rows(effects: Effects, logit: Readout, contrast: Readout, n_top: int) -> list[dict[str, Any]]:
    """One row an intervention on a top feature: effects on the logit and on the contrast."""
    nodes, rows = effects.graph.nodes, []
    assert logit.direct is not None
    for i, change in enumerate(effects.change.tolist()):
        for j, node in enumerate(effects.sources[:n_top].tolist()):
            rows.append(
                {
                    "node": node,
                    "layer": int(nodes.layer[node]),
                    "position": int(nodes.position[node]),
                    "feature": int(nodes.index[node]),
                    "factor": change + 1.0,
                    "predicted_direct": change * float(logit.direct[j]),
                    "predicted_total": change * float(logit.total[j]),
                    "predicted_norms": change * float(logit.first_order["norms"][j]),
                    "frozen": float(logit.measured["frozen"][i, j]),
                    "attention_frozen": float(logit.measured["attention_frozen"][i, j]),
                    "real": float(logit.measured["real"][i, j]),
                    "random_real": float(logit.measured["random"][i, j]),
                    "contrast": {
                        "predicted_total": change * float(contrast.total[j]),
                        "predicted_norms": change * float(contrast.first_order["norms"][j]),
                        "real": float(contrast.measured["real"][i, j]),
                        "random_real": float(contrast.measured["random"][i, j]),
                    },
                }
            )
    return rows
