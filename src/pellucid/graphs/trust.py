"""How far to trust a graph, in plain words: used by the page and by the command line."""

from dataclasses import dataclass
from typing import Any, Literal

from pellucid.graphs.graph import AttributionGraph

Level = Literal["good", "fair", "poor", "unknown"]

STRONG, MODERATE = 0.8, 0.5
"""Shares and correlations at least this high count as strong, or as moderate."""
SHOWN_WIDTH = 0.005
"""Bounds of a score closer together than this are not worth showing."""
EXACT = 1e-4
"""Where everything is frozen, the graph must predict effects to this relative error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One thing that was measured, what came out, and what it means."""

    heading: str
    value: str
    text: str
    level: Level


def verdict(graph: AttributionGraph) -> Statement:
    """The overall judgement: the weakest of arithmetic, causal agreement and coverage."""
    causal = graph.causal
    heading = "How far to trust this graph"
    if causal is None:
        return Statement(
            heading=heading,
            value="Not checked",
            text="No intervention was run, so the graph is a hypothesis. Trace again with the "
            "causal check to test it.",
            level="unknown",
        )
    if _number(causal, "frozen_max_error", default=1.0) > EXACT:
        return Statement(
            heading=heading,
            value="Do not trust",
            text="Even with everything frozen, where the graph must be exact, its predictions "
            "differ from what is measured. This points to a defect, not to a weak explanation.",
            level="poor",
        )
    real = _number(causal, "spearman_real", default=0.0)
    control = abs(_number(causal, "spearman_random", default=0.0))
    coverage = graph.scores.get("replacement_low", graph.scores.get("replacement"))
    coverage = 0.0 if coverage is None else coverage
    if real <= control or real < MODERATE:
        return Statement(
            heading=heading,
            value="Weakly supported",
            text="In the real model the graph's top features do not act as the graph says, or no "
            "more so than random features. Treat its story as a guess.",
            level="poor",
        )
    if real < STRONG or coverage < MODERATE:
        return Statement(
            heading=heading,
            value="Partly supported",
            text="The graph's top features act in the real model roughly as predicted, but much "
            "is missing or only ranked loosely. Trust the strongest features, not the details.",
            level="fair",
        )
    return Statement(
        heading=heading,
        value="Well supported",
        text="Ablating and doubling the graph's top features changes the real model's prediction "
        "as the graph says, and random features do not. Still, this speaks for this one prompt.",
        level="good",
    )


def trust_statements(graph: AttributionGraph) -> list[Statement]:
    """What was measured about a graph, most telling first; what was not run is said too."""
    statements = [*_causal_statements(graph.causal), *_answer_statements(graph.causal)]
    statements += _score_statements(graph.scores)
    if graph.row_sum_max_error is not None:
        statements.append(
            Statement(
                heading="Rows add up",
                value=f"{graph.row_sum_max_error:.0e}",
                text="Largest relative gap between the sum of a node's inputs, biases included, "
                "and its own value when traced. Nothing that enters a node is unaccounted for.",
                level="good" if graph.row_sum_max_error <= 1e-3 else "poor",
            )
        )
    return statements


def _causal_statements(causal: dict[str, Any] | None) -> list[Statement]:
    if causal is None:
        return [
            Statement(
                heading="Causal check",
                value="not run",
                text="No feature was ablated or doubled, so nothing is known about causes.",
                level="unknown",
            )
        ]
    target = (causal.get("target") or {}).get("label", "").strip()
    real, control = causal.get("spearman_real"), causal.get("spearman_random")
    exact = causal.get("frozen_max_error")
    return [
        Statement(
            heading="In the real model",
            value=_correlation(causal, "spearman_real"),
            text=f"Rank correlation between predicted and measured effects on “{target}” over "
            f"{causal.get('n', 0)} interventions, nothing frozen. Signs agree in "
            f"{_percent(causal.get('sign_agreement_real'))}.",
            level=_level(real),
        ),
        Statement(
            heading="Random features, for comparison",
            value=_correlation(causal, "spearman_random"),
            text="The same measurement with another feature of the same layer, changed by the "
            "same amount. It shows what agreement means nothing. Signs agree in "
            f"{_percent(causal.get('sign_agreement_random'))}; the graph's features move the "
            f"prediction {_times(causal.get('median_effect_ratio'))} as much.",
            level=_level(None if real is None or control is None else real - abs(control)),
        ),
        Statement(
            heading="With attention held fixed",
            value=_correlation(causal, "spearman_attention_frozen"),
            text="The graph holds attention patterns fixed. What is lost between this figure and "
            "the real model's is what attention adds and the graph cannot show.",
            level=_level(causal.get("spearman_attention_frozen")),
        ),
        Statement(
            heading="With everything held fixed",
            value="unknown" if exact is None else f"{exact:.0e}",
            text="Here the graph is exact by construction: the largest error relative to the "
            f"largest effect, which must stay below {EXACT:g}.",
            level="unknown" if exact is None else "good" if exact <= EXACT else "poor",
        ),
    ]


def _answer_statements(causal: dict[str, Any] | None) -> list[Statement]:
    """Effects on features on the way, and what frozen norms cost; nothing where not measured."""
    records = {(r["target"], r["answer"]): r for r in (causal or {}).get("answers") or []}
    statements = []
    on_the_way = records.get(("features", "features"))
    if on_the_way is not None:
        statements.append(
            Statement(
                heading="On features on the way",
                value=_correlation(on_the_way, "spearman_real"),
                text="The same in the real model, read at influential features of later layers; "
                f"random features give {_correlation(on_the_way, 'spearman_random')}.",
                level=_level(on_the_way["spearman_real"]),
            )
        )
    plain, norms = (records.get(("contrast", answer)) for answer in ("features", "norms"))
    if plain is not None and norms is not None:
        statements.append(
            Statement(
                heading="If norms could answer",
                value=_correlation(norms, "spearman_real"),
                text="The graph holds norm scales fixed. On the answer less the runner-up it gives "
                f"{_correlation(plain, 'spearman_real')}; a prediction that lets norms answer, "
                "which is not the graph's own, gives this; random features "
                f"{_correlation(norms, 'spearman_random')}.",
                level=_level(norms["spearman_real"]),
            )
        )
    return statements


def _score_statements(scores: dict[str, float]) -> list[Statement]:
    replacement, completeness = scores.get("replacement"), scores.get("completeness")
    missing = None if replacement is None else 1 - replacement
    return [
        Statement(
            heading="Replacement score",
            value=_percent(replacement) + _bounds(scores, "replacement"),
            text="Share of the influence that starts from the prompt's tokens. The other "
            f"{_percent(missing)} start from error nodes: what the transcoders do not reproduce.",
            level=_level(replacement),
        ),
        Statement(
            heading="Completeness score",
            value=_percent(completeness) + _bounds(scores, "completeness"),
            text="Share of the nodes' inputs, weighted by influence, that comes from features and "
            "tokens and not from errors.",
            level=_level(completeness),
        ),
    ]


def _number(record: dict[str, Any], name: str, *, default: float) -> float:
    value = record.get(name)
    return default if value is None else float(value)


def _level(value: float | None) -> Level:
    if value is None:
        return "unknown"
    return "good" if value >= STRONG else "fair" if value >= MODERATE else "poor"


def _bounds(scores: dict[str, float], name: str) -> str:
    """Where the whole graph's score lies, if features were left out."""
    low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
    if low is None or high is None or high - low < SHOWN_WIDTH:
        return ""
    return f" (whole graph: {_percent(low)} to {_percent(high)})"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f}%"


def _times(value: float | None) -> str:
    return "an unknown number of times" if value is None else f"{value:.1f} times"


def _correlation(causal: dict[str, Any], name: str) -> str:
    value, interval = causal.get(name), causal.get(f"{name}_interval")
    if value is None:
        return "unknown"
    return f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")
