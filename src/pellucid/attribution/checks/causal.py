"""The causal check of a graph: what it predicts for interventions, beside what they do.

The graph's most influential features are ablated and doubled one at a time. Three runs of the
real modules measure the effect: under the full freeze, where the graph's direct edges must be
exact; with attention patterns frozen; and in the real model. Effects are read at the explained
logits and, on the way there, at features of several layers, all in the same forwards. A matched
random control (another feature of the same layer, at the same position, with a change of the same
norm) shows what agreement means nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from pellucid.attribution.checks.agreement import agreement, spearman
from pellucid.attribution.checks.depth import (
    Effects,
    Readout,
    ReadoutKind,
    answer_records,
    depth_records,
    downstream_rows,
)
from pellucid.attribution.checks.derivatives import ANSWERS, first_order_effects
from pellucid.attribution.checks.interventions import (
    control_deltas,
    feature_deltas,
    feature_probe,
    reaches,
    sources_of,
    target_probe,
    targets_of,
)
from pellucid.attribution.checks.measure import Deltas, Freedom, probed_effects
from pellucid.attribution.checks.predict import predicted_effects
from pellucid.attribution.checks.probes import LogitProbe, Probe
from pellucid.attribution.linearise import LinearModel
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import LOGIT

__all__ = ["causal_check", "predicted_effects", "spearman"]

FACTORS = (0.0, 2.0)


@torch.no_grad()
def causal_check(
    linear: LinearModel, graph: AttributionGraph, *, features: int = 24, seed: int = 0
) -> dict[str, Any] | None:
    """Intervene on the graph's top features and compare with its predictions.

    Effects are on the first thing explained: by default the likeliest logit, less the mean logit.
    Correlations and signs compare effects per unit of change, so that ablating and doubling a
    feature do not agree by construction. Intervals are 95% bootstrap intervals over features.

    Beside these figures, `by_depth` has those of each third of the model intervened in and of each
    place read (`depth.depth_records`), `answers` compares with predictions that hold less fixed
    than the graph does (`depth.answer_records`), and `downstream` lists the effects on features.

    Args:
        linear: the affine map the graph was built from.
        graph: the graph, unpruned.
        features: how many features to check; further ones are checked for depth's sake alone.
        seed: of the control features and the bootstrap.

    Returns:
        Figures and one row an intervention; None when the graph has no feature, or explains
        nothing but directions.
    """
    sources, n_top = sources_of(graph, features)
    if n_top == 0:
        return None
    effects = _effects(linear, graph, sources, n_top, seed)
    if effects is None:
        return None
    logit, top = effects.readouts[0], effects.top
    result: dict[str, Any] = {
        "frozen_max_error": effects.frozen_max_error(),
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
    result["rows"] = _rows(effects)
    result["downstream"] = downstream_rows(effects)
    return result


def _effects(
    linear: LinearModel,
    graph: AttributionGraph,
    sources: Int64[np.ndarray, " F"],
    n_top: int,
    seed: int,
) -> Effects | None:
    """All effects of intervening on the sources; None where nothing explained can be read."""
    nodes = graph.nodes
    ends = [
        (int(node), probe)
        for number, node in enumerate(np.flatnonzero(nodes.is_kind(LOGIT)))
        if (probe := target_probe(linear, graph, int(node), number)) is not None
    ]
    if not ends:
        return None
    downstream = targets_of(graph, sources).tolist()
    targets = [node for node, _ in ends] + downstream
    probes = [probe for _, probe in ends] + [
        feature_probe(linear, int(nodes.layer[n]), int(nodes.position[n]), int(nodes.index[n]))
        for n in downstream
    ]
    contrast = _contrast(linear, graph, ends[0][0], ends[0][1])
    direct, total = predicted_effects(graph, np.array(targets), sources)
    deltas = feature_deltas(linear, graph, sources)
    generator = torch.Generator().manual_seed(seed)
    control = control_deltas(linear, graph, sources, deltas, generator)
    change = np.array(FACTORS) - 1.0
    places = [*probes, *([] if contrast is None else [contrast])]
    measured = _measured(linear, deltas, control, places, change)
    first = {
        answer: first_order_effects(linear.local, deltas, places, answer).double().cpu().numpy()
        for answer in ANSWERS
    }

    def readout(column: int, kind: ReadoutKind, node: int | None) -> Readout:
        is_end, read = kind != "features", targets[0] if node is None else node
        here = {str(answer): values[..., column] for answer, values in first.items()}
        return Readout(
            kind=kind,
            layer=int(nodes.layer[read]),
            node=node,
            value=1.0 if is_end else float(graph.target_values[read]),
            reaches=np.ones(len(sources), bool) if is_end else reaches(graph, sources, read),
            direct=None if node is None else direct[column],
            total=here["features"] if node is None else total[column],
            first_order=here,
            measured={name: values[..., column] for name, values in measured.items()},
        )

    readouts = [
        readout(column, "logit" if column < len(ends) else "features", node)
        for column, node in enumerate(targets)
    ]
    if contrast is not None:
        readouts.append(readout(len(targets), "contrast", None))
    return Effects(
        graph=graph,
        sources=sources,
        top=np.arange(len(sources)) < n_top,
        change=change,
        readouts=tuple(readouts),
    )


def _measured(
    linear: LinearModel,
    deltas: Deltas,
    control: Deltas,
    probes: Sequence[Probe],
    change: Float64[np.ndarray, " factors"],
) -> dict[str, Float64[np.ndarray, "factors F P"]]:
    def measure(changes: Deltas, freedom: Freedom) -> np.ndarray:
        parts = [probed_effects(linear.local, changes.scaled(by), probes, freedom) for by in change]
        return torch.stack(parts).double().cpu().numpy()

    return {
        "frozen": measure(deltas, "frozen"),
        "attention_frozen": measure(deltas, "attention_frozen"),
        "real": measure(deltas, "real"),
        "random": measure(control, "real"),
    }


def _contrast(
    linear: LinearModel, graph: AttributionGraph, node: int, probe: Probe
) -> LogitProbe | None:
    """The first explained token's logit less that of the likeliest other token."""
    if not isinstance(probe, LogitProbe) or probe.other is not None:
        return None
    likeliest = linear.local.run.logits[probe.position].topk(2).indices.tolist()
    other = next(token for token in likeliest if token != probe.token)
    return LogitProbe(probe.token, other, probe.position)


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


def _rows(effects: Effects) -> list[dict[str, Any]]:
    """One row an intervention on a top feature: effects on the logit and on the contrast."""
    nodes, logit = effects.graph.nodes, effects.readouts[0]
    contrast = next(iter(effects.of_kind("contrast")), None)
    rows = []
    for i, change in enumerate(effects.change.tolist()):
        for j in np.flatnonzero(effects.top).tolist():
            node = int(effects.sources[j])
            row = {
                "node": node,
                "layer": int(nodes.layer[node]),
                "position": int(nodes.position[node]),
                "feature": int(nodes.index[node]),
                "factor": change + 1.0,
            }
            row |= logit.row(i, j, change)
            if contrast is not None:
                row["contrast"] = contrast.row(i, j, change)
            rows.append(row)
    return rows
