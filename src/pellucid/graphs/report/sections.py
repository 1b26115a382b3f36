"""The sections of a report that rest on graphs alone: sums, coverage, stability, limits."""

import math
from typing import Any

import numpy as np

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.report.blocks import (
    Bar,
    Check,
    Forest,
    Section,
    Table,
    level_of,
    percent,
    small,
    with_interval,
)
from pellucid.graphs.report.evidence import Evidence
from pellucid.graphs.report.shape import shape
from pellucid.graphs.resampling import Figure
from pellucid.graphs.tables import LOGIT

FIGURES = {
    "node_jaccard": "features in common",
    "edge_jaccard": "edges in common",
    "weighted_edge_jaccard": "edges in common, by influence",
    "influence_correlation": "rank correlation of influence",
    "edge_correlation": "rank correlation of edges",
}
STEP_FIGURES = {name: label for name, label in FIGURES.items() if name != "edge_correlation"}
ROWS_EXACT = 1e-3


def sums_section(graph: AttributionGraph) -> Section:
    """Whether every row adds up to what it explains."""
    error = graph.row_sum_max_error
    return Section(
        title="Do its sums add up?",
        text="A complete row of edges, biases included, must sum to the value of its target. The "
        "figure is the largest relative gap over all rows, measured when the graph was traced.",
        checks=(
            Check(
                heading="Rows add up",
                value=small(error),
                control=f"must be below {ROWS_EXACT:g}",
                text="Largest relative gap between a row's sum and its target's value.",
                level="unknown" if error is None else "good" if error <= ROWS_EXACT else "poor",
            ),
        ),
    )


def coverage_section(graph: AttributionGraph) -> Section:
    """How much of the whole graph rests on features, whatever the cap."""
    scores, left = graph.scores, graph.metadata.get("unexplored_influence")
    bars = tuple(
        Bar(
            label=name,
            value=_finite(scores.get(name)),
            low=_finite(scores.get(f"{name}_low")),
            high=_finite(scores.get(f"{name}_high")),
            null=None,
        )
        for name in ("replacement", "completeness")
    )
    low, high = bars[0].low, bars[0].high
    if low is None or high is None:
        low = high = bars[0].value
    exact = low is not None and high is not None and high - low < 5e-3
    held = percent(low) if exact else f"{percent(low)} to {percent(high)}"
    return Section(
        title="How much does it explain?",
        text="Replacement is the share of influence at the graph's inputs that comes from tokens "
        "and not from errors; completeness the share of all nodes' inputs that is no error, "
        "weighed by influence. Dots are the scores of this graph; bars hold those of the whole "
        "graph, whatever was left out: at one end all influence that was not followed goes to "
        "errors, at the other to tokens. These scores say nothing of causes: a graph can score "
        "high and predict no intervention.",
        checks=(
            Check(
                heading="Replacement, whole graph",
                value=held,
                control=f"{percent(left)} of the influence not followed",
                text="Share of influence that starts from tokens and not from errors.",
                level=level_of(low),
            ),
        ),
        forests=(Forest(title="Scores", note="dot: this graph; bar: the whole graph", bars=bars),),
    )


def stability_section(evidence: Evidence) -> Section:
    """How much stays under other thresholds and wordings."""
    steps = evidence.thresholds.steps
    tables = [
        Table(
            caption="The graph against itself, pruned less (in brackets: chance)",
            columns=("kept influence", "features", "edges", *STEP_FIGURES.values()),
            rows=tuple(
                (
                    " → ".join(percent(value) for value in step.thresholds),
                    " → ".join(map(str, step.features)),
                    " → ".join(map(str, step.edges)),
                    *(_figure(getattr(step, name)) for name in STEP_FIGURES),
                )
                for step in steps
            ),
        )
    ]
    checks: tuple[Check, ...] = ()
    forests: tuple[Forest, ...] = ()
    wording = evidence.wording
    notes = []
    if wording is None:
        notes.append("No paraphrases were given, so nothing is known of other wordings.")
    else:
        forests = (
            Forest(
                title=f"Between {wording.graphs} wordings",
                note="dot and bar: measured, with interval over wordings; mark: chance",
                bars=_bars({name: getattr(wording, name) for name in FIGURES}),
                start=-1,
            ),
        )
        figure = wording.weighted_edge_jaccard
        checks = (
            Check(
                heading="Same circuit in other words",
                value=_plain(figure),
                control=f"chance {with_interval(figure.null, None, None)}",
                text="Edges that graphs of the paraphrases share, weighed by influence.",
                level=level_of(figure.value, figure.null),
            ),
        )
        tables.insert(0, _wordings_table([evidence.graph, *evidence.paraphrases]))
    return Section(
        title="Does it stay the same?",
        text="How much of the pruned graph is shared with itself at other pruning thresholds, and "
        "with graphs of other wordings. Chance is the same figure when the features of one graph "
        "are shuffled within each layer.",
        checks=checks,
        tables=tuple(tables),
        forests=forests,
        notes=tuple(notes),
    )


def _wordings_table(graphs: list[AttributionGraph]) -> Table:
    rows = []
    for graph in graphs:
        ends = np.flatnonzero(graph.nodes.is_kind(LOGIT))
        best = int(ends[np.argmax(graph.nodes.probability[ends])])
        share = percent(float(graph.nodes.probability[best]))
        rows.append((graph.prompt, graph.nodes.label[best].strip(), share))
    return Table(
        caption="The wordings", columns=("prompt", "answer", "probability"), rows=tuple(rows)
    )


def dictionary_section(evidence: Evidence) -> Section | None:
    """How far other dictionaries tell the same story; None where none were given."""
    if not evidence.compared:
        return None
    own = {str(evidence.graph.metadata.get("dictionaries", "this graph")): evidence.graph}
    checks, forests = [], []
    for name, comparison in evidence.dictionaries.items():
        figure = comparison.figures["weighted_edge_jaccard"]
        checks.append(
            Check(
                heading=f"Same places with {name}",
                value=_plain(figure),
                control=f"chance {with_interval(figure.null, None, None)}",
                text="Edges between layers and positions that both share, weighed by influence.",
                level=level_of(figure.value, figure.null),
            )
        )
        forests.append(
            Forest(
                title=f"Against {name}",
                note="by layer and position; mark: chance",
                bars=_bars(comparison.figures),
                start=-1,
            )
        )
    return Section(
        title="Do other dictionaries agree?",
        text="The same prompt, traced with other dictionaries. Features of different dictionaries "
        "cannot be matched by number, so all features of one layer and position count as one. "
        "Steps are the features on a path, on average over the influence (too few where a graph "
        "left features out): cross-layer "
        "transcoders are known to shorten circuits of several steps, so where they have clearly "
        "fewer steps than transcoders of one layer, the shorter story needs proof by intervention.",
        checks=tuple(checks),
        tables=(_sets_table(own | evidence.compared),),
        forests=tuple(forests),
    )


def _sets_table(graphs: dict[str, AttributionGraph]) -> Table:
    rows = []
    for name, graph in graphs.items():
        form, causal = shape(graph), graph.causal or {}
        rows.append(
            (
                name,
                str(graph.nodes.counts()["feature"]),
                f"{form.steps:.2f}",
                f"{form.depth:.2f}",
                percent(graph.scores.get("replacement")),
                percent(graph.scores.get("completeness")),
                with_interval(
                    causal.get("spearman_real"),
                    *(causal.get("spearman_real_interval") or (None, None)),
                ),
                with_interval(causal.get("spearman_random"), None, None),
            )
        )
    return Table(
        caption="The dictionary sets (real model, random: rank correlation with the prediction)",
        columns=(
            "dictionaries",
            "features",
            "steps",
            "mean depth",
            "replacement",
            "completeness",
            "real model",
            "random",
        ),
        rows=tuple(rows),
    )


def limits_section(evidence: Evidence) -> Section:
    """What the graph does not show."""
    graph = evidence.graph
    scores = graph.scores
    notes = [
        "Why attention looked where it did: patterns are taken as they were in this prompt.",
        "How norms rescale what is left when something is removed: their scales are held fixed.",
        "What happens under changes that are not small: an MLP answers a large change unlike a "
        "small one, and inactive features that a change would wake are not in the graph.",
        "Redundancy: a feature whose work others would take over looks as needed as one that "
        "nothing replaces.",
        "What the features mean: labels, where there are any, are read from examples and tested "
        "nowhere on this page.",
        "Other prompts: every figure is about this one, but for the paraphrases where given.",
        "The choice of dictionaries: another set writes the same computation in other features.",
        "Chance in the control: each feature has one random partner, drawn once by the seed.",
    ]
    explained = _finite(scores.get("replacement_low", scores.get("replacement")))
    missing = 1 - (0.0 if explained is None else explained)
    notes.insert(
        0, f"What errors carry: up to {percent(missing)} of the influence starts from error nodes."
    )
    left = graph.metadata.get("unexplored_influence")
    if left:
        notes.insert(1, f"What was left out: {percent(left)} of the influence was not followed.")
    if graph.metadata.get("logit_softcap"):
        notes.append("The final softcap: logits are those before it.")
    return Section(
        title="What this graph does not show",
        text="True of every attribution graph of this kind, this one included.",
        notes=tuple(notes),
    )


def provenance(evidence: Evidence) -> Table:
    """What made the graph, from what."""
    rows = [("prompt", evidence.graph.prompt)]
    kept: dict[str, Any] = evidence.graph.metadata | evidence.settings
    for name, value in kept.items():
        if isinstance(value, (str, int, float, bool)):
            rows.append((name.replace("_", " "), str(value)))
        elif name in ("token_ids", "versions"):
            parts = value.items() if isinstance(value, dict) else value
            texts = (" ".join(map(str, p)) if isinstance(p, tuple) else str(p) for p in parts)
            rows.append((name.replace("_", " "), ", ".join(texts)))
    counts = evidence.graph.nodes.counts()
    rows.append(("nodes", ", ".join(f"{count} {kind}" for kind, count in counts.items())))
    rows.append(("edges", str(len(evidence.graph.edges))))
    return Table(caption="Where it comes from", columns=("", ""), rows=tuple(rows))


def _bars(figures: dict[str, Figure]) -> tuple[Bar, ...]:
    return tuple(
        Bar(
            label=label,
            value=figures[name].value,
            low=figures[name].low,
            high=figures[name].high,
            null=figures[name].null,
        )
        for name, label in FIGURES.items()
    )


def _plain(figure: Figure) -> str:
    return with_interval(figure.value, figure.low, figure.high)


def _figure(figure: Figure) -> str:
    chance = "" if figure.null is None else f" ({figure.null:.2f})"
    return _plain(figure) + chance


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
