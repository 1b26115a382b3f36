"""The sections of a report that rest on interventions."""

from typing import Any

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.report.blocks import (
    Check,
    Scatter,
    Section,
    Table,
    correlation,
    level_of,
    percent,
    points,
    small,
    with_interval,
)
from pellucid.graphs.trust import EXACT

NOT_RUN = "No feature was ablated or doubled, so nothing is known about causes."
ANSWER_NAMES = {
    "features": "nothing but features (the graph)",
    "norms": "norm scales",
    "mlps": "and the real MLPs in the features' place",
    "attention": "and attention patterns: the real model's own derivative",
}
PLACES = {"logit": "the answer's logit", "contrast": "answer minus runner-up"}


def causal_section(graph: AttributionGraph) -> Section:
    """Effects on what the graph explains: predicted, measured, and of random features."""
    causal = graph.causal
    title = "Do its features act as it says?"
    if causal is None:
        check = Check(
            heading="Causal check", value="not run", control="n/a", text=NOT_RUN, level="unknown"
        )
        return Section(title=title, text=NOT_RUN, checks=(check,))
    rows = causal.get("rows", [])
    answer = (causal.get("target") or {}).get("label", "").strip()
    contrast = [row["contrast"] for row in rows if "contrast" in row]

    def ranked(name: str) -> str:
        return f"rank correlation {correlation(causal or {}, name)}"

    scatters = [
        Scatter(
            title="Everything frozen",
            note="edges against measured: must lie on the line",
            points=points(rows, "predicted_direct", "frozen"),
        ),
        Scatter(
            title="Attention frozen",
            note=f"path sums against measured, {ranked('attention_frozen')}",
            points=points(rows, "predicted_total", "attention_frozen"),
        ),
        Scatter(
            title="Real model",
            note=f"path sums against measured, {ranked('real')}",
            points=points(rows, "predicted_total", "real"),
        ),
        Scatter(
            title="Random features, real model",
            note=f"the same predictions, other features, {ranked('random')}",
            points=points(rows, "predicted_total", "random_real"),
            control=True,
        ),
    ]
    if contrast:
        scatters += [
            Scatter(
                title="Answer minus runner-up",
                note="path sums against measured, real model",
                points=points(contrast, "predicted_total", "real"),
            ),
            Scatter(
                title="Answer minus runner-up, random",
                note="the same predictions, random features",
                points=points(contrast, "predicted_total", "random_real"),
                control=True,
            ),
        ]
    return Section(
        title=title,
        text=f"The graph's top features were ablated and doubled one at a time, and the effect on "
        f"“{answer}” was measured, in {causal.get('n', 0)} interventions. Each dot is one; a dot "
        "on the dashed line did what was predicted. Rank correlations compare effects per "
        "unit of change, with 95% bootstrap intervals over features.",
        checks=(_exact(causal), _real(causal)),
        scatters=tuple(scatters),
    )


def _exact(causal: dict[str, Any]) -> Check:
    exact = causal.get("frozen_max_error")
    return Check(
        heading="Arithmetic, by intervention",
        value=small(exact),
        control=f"must be below {EXACT:g}",
        text="Largest error of an edge when everything the graph holds fixed is held fixed in the "
        "real modules.",
        level="unknown" if exact is None else "good" if exact <= EXACT else "poor",
    )


def _real(causal: dict[str, Any]) -> Check:
    return Check(
        heading="Effects on the answer, real model",
        value=correlation(causal, "real"),
        control=f"random features {correlation(causal, 'random')}",
        text="Rank correlation of predicted and measured effects, nothing frozen.",
        level=level_of(causal.get("spearman_real"), causal.get("spearman_random")),
    )


def depth_section(graph: AttributionGraph) -> Section | None:
    """Effects on features on the way, and all figures by depth; None where not measured."""
    causal = graph.causal or {}
    records = causal.get("by_depth") or []
    if not records:
        return None
    rows = causal.get("downstream", [])
    layers = sorted({row["target"]["layer"] for row in rows})
    scatters = []
    for layer in layers:
        own = [row for row in rows if row["target"]["layer"] == layer]
        scatters.append(
            Scatter(
                title=f"On features of layer {layer}",
                note="path sums against measured, as a share of the feature's value",
                points=points(own, "predicted_total", "real"),
            )
        )
    scatters.append(
        Scatter(
            title="All layers, random features",
            note="the same predictions, random features",
            points=points(rows, "predicted_total", "random_real"),
            control=True,
        )
    )
    pooled = _answer_record(causal, "features", "features")
    checks: tuple[Check, ...] = ()
    if pooled:
        checks = (
            Check(
                heading="Effects on features on the way, real model",
                value=correlation(pooled, "real"),
                control=f"random features {correlation(pooled, 'random')}",
                text="The same for the pre-activations of influential features of later layers.",
                level=level_of(pooled["spearman_real"], pooled["spearman_random"]),
            ),
        )
    return Section(
        title="At which depth does it hold?",
        text="The same interventions, read at influential features of later layers on their way "
        "to the answer, and by the third of the model that was intervened in. Where a line has "
        "few features its interval is wide: read the interval, not the figure.",
        checks=checks,
        tables=(_depth_table(records),) if records else (),
        scatters=tuple(scatters),
    )


def _depth_table(records: list[dict[str, Any]]) -> Table:
    return Table(
        caption="Rank correlation of predicted with measured effects",
        columns=(
            "read at",
            "changed",
            "features",
            "frozen error",
            "attention frozen",
            "real model",
            "random",
            "norms answer",
            "norms, random",
        ),
        rows=tuple(
            (
                PLACES.get(record["target"], f"features of layer {record['layer']}"),
                record["source_depth"],
                str(record["features"]),
                small(record["frozen_max_error"]),
                *(
                    correlation(record, name)
                    for name in ("attention_frozen", "real", "random", "norms", "norms_random")
                ),
            )
            for record in records
        ),
    )


def answer_section(graph: AttributionGraph) -> Section | None:
    """What is lost by what the graph holds fixed; None where not measured."""
    causal = graph.causal or {}
    records = causal.get("answers") or []
    if not records:
        return None
    plain, norms = (_answer_record(causal, "contrast", name) for name in ("features", "norms"))
    checks: tuple[Check, ...] = ()
    if plain and norms:
        checks = (
            Check(
                heading="What frozen norms cost",
                value=f"{correlation(plain, 'real')} → {correlation(norms, 'real')}",
                control=f"random features {correlation(norms, 'random')}",
                text="Rank correlation with the effect on answer minus runner-up, before and after "
                "norm scales may answer. The second figure is not the graph's own.",
                level=level_of(norms["spearman_real"], norms["spearman_random"]),
            ),
        )
    return Section(
        title="Where are its predictions lost?",
        text="The graph holds norm scales, MLPs and attention patterns as they were. Each line "
        "predicts the same interventions by a derivative that lets one thing more answer; the "
        "line where agreement rises names what the graph's picture lacks. The size is the median "
        "measured effect over the median predicted one: below 1 the prediction is too large.",
        checks=checks,
        tables=(
            Table(
                caption="Agreement with the real model, when what answers is",
                columns=("answers", "read at", "n", "real model", "random", "same sign", "size"),
                rows=tuple(
                    (
                        ANSWER_NAMES[record["answer"]],
                        PLACES.get(record["target"], "features on the way"),
                        str(record["n"]),
                        correlation(record, "real"),
                        correlation(record, "random"),
                        percent(record["sign_agreement_real"]),
                        with_interval(record["size_ratio"], None, None),
                    )
                    for record in records
                ),
            ),
        ),
    )


def supernode_section(graph: AttributionGraph) -> Section | None:
    """The groups that were tested by ablating them together; None where none was."""
    checks = graph.metadata.get("supernode_checks")
    if not checks:
        return None
    accepted = sum(check["accepted"] for check in checks)
    return Section(
        title="Do its groups act as one?",
        text="Features that read and write alike were proposed as groups. Each group was ablated "
        "as a whole in the real model; it is kept only when what happened, at the answer's margins "
        "and at later features, is what the graph predicts as the sum of its parts, and random "
        "groups of the same size and places are farther from that.",
        checks=(
            Check(
                heading="Groups that act as predicted",
                value=f"{accepted} of {len(checks)}",
                control=f"each against {checks[0]['controls']} random groups",
                text="Proposed groups whose joint ablation did what their parts predict.",
                level="good" if accepted == len(checks) else "fair" if accepted else "poor",
            ),
        ),
        tables=(
            Table(
                caption="Distance of the predicted from the measured effect, as a share of it",
                columns=(
                    "group",
                    "features",
                    "kept",
                    "frozen",
                    "attention frozen",
                    "real model",
                    "norms answer",
                    "sum of single ablations",
                    "p",
                    "why",
                ),
                rows=tuple(
                    (
                        check["name"],
                        str(len(check["features"])),
                        "yes" if check["accepted"] else "no",
                        *(
                            percent(check[f"error_{name}"])
                            for name in ("frozen", "attention_frozen", "real", "norms", "parts")
                        ),
                        f"{check['p']:.2f}",
                        check["reason"],
                    )
                    for check in checks
                ),
            ),
        ),
    )


def _answer_record(causal: dict[str, Any], target: str, answer: str) -> dict[str, Any] | None:
    for record in causal.get("answers") or []:
        if (record["target"], record["answer"]) == (target, answer):
            return record
    return None
