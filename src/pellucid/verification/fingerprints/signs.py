"""Family `sign`: what speaks for the prediction, what against it, and who else is supported.

The contrast is the explained difference of logits, or the likeliest explained logit minus the next
one; with one plain logit it is that logit (less the mean logit).
"""

import numpy as np
from jaxtyping import Float64

from pellucid.graphs.tables import ERROR, FEATURE, LOGIT, TOKEN
from pellucid.verification.fingerprints.definition import Definition, Family
from pellucid.verification.fingerprints.measured import MeasuredGraph, gini, ratio
from pellucid.verification.steps.place import ROLES

_DIRECT = "direct effects of features, errors and tokens on the contrast"
_INPUTS = "effects of the inputs (tokens and errors) on the contrast over all paths"
_FEATURES = "effects of the features on the contrast over all paths"

DEFINITIONS = (
    Definition("sign.direct_against", f"negative part of the summed sizes of the {_DIRECT}"),
    Definition(
        "sign.direct_cancelled", f"1 - size of the sum by the sum of sizes, of the {_DIRECT}"
    ),
    Definition("sign.direct_gini", f"how unequal the sizes of the {_DIRECT} are"),
    Definition("sign.direct_top1", f"share of the largest of the {_DIRECT} in their sizes"),
    Definition("sign.direct_top5", f"share of the five largest of the {_DIRECT} in their sizes"),
    Definition(
        "sign.feature_{layer}",
        f"of the {_DIRECT}: summed over a layer's features, by the sum of all sizes",
        "-1..1",
    ),
    Definition(
        "sign.error_{layer}",
        f"of the {_DIRECT}: summed over a layer's errors, by the sum of all sizes",
        "-1..1",
    ),
    Definition(
        "sign.token", f"of the {_DIRECT}: summed over tokens, by the sum of all sizes", "-1..1"
    ),
    Definition("sign.input_against", f"negative part of the summed sizes of the {_INPUTS}"),
    Definition(
        "sign.input_cancelled", f"1 - size of the sum by the sum of sizes, of the {_INPUTS}"
    ),
    Definition("sign.input_gini", f"how unequal the sizes of the {_INPUTS} are"),
    Definition(
        "sign.role_{role}",
        f"of the {_INPUTS}: summed over positions of a role, by the sum of all sizes",
        "-1..1",
        stands="text",
    ),
    Definition("sign.effect_against", f"negative part of the summed sizes of the {_FEATURES}"),
    Definition("sign.effect_gini", f"how unequal the sizes of the {_FEATURES} are"),
    Definition("sign.effect_top1", f"share of the largest of the {_FEATURES} in their sizes"),
    Definition("sign.effect_top5", f"share of the five largest of the {_FEATURES} in their sizes"),
    Definition("sign.negative_flow", "share of influence that passes edges of negative weight"),
    Definition(
        "sign.agreement",
        "cosine of the direct effects on the two likeliest explained logits; 1 for one logit",
        "-1..1",
    ),
    Definition(
        "sign.runner_up",
        "direct support (summed positive direct effects) of the second explained logit, by that of "
        "both; 0 for one logit",
    ),
)


def contrast(measured: MeasuredGraph) -> Float64[np.ndarray, " N"]:
    """1 at the likeliest explained logit, -1 at the next (if there are two), 0 elsewhere."""
    start = np.zeros(len(measured.nodes))
    first = _likeliest(measured)
    start[first[:1]] = 1
    start[first[1:2]] = -1
    return start


def _likeliest(measured: MeasuredGraph) -> np.ndarray:
    logits = np.flatnonzero(measured.is_kind(LOGIT))
    return logits[np.argsort(-measured.nodes.probability[logits], kind="stable")]


def _measure(measured: MeasuredGraph) -> dict[str, float]:
    start = contrast(measured)
    direct, effects = _direct(measured, start), measured.effects_on(start)
    features, tokens = measured.is_kind(FEATURE), measured.is_kind(TOKEN)
    ends = measured.is_kind(ERROR) | tokens
    through = measured.through
    found = {
        **_balance("direct", direct[measured.counted]),
        **_balance("input", effects[ends]),
        **_balance("effect", effects[features]),
        "sign.negative_flow": ratio(through[measured.edges.weight < 0].sum(), through.sum()),
        **_rivals(measured),
    }
    found = {name: value for name, value in found.items() if name in _NAMES}
    row, size = np.abs(direct[measured.counted]).sum(), np.abs(effects[ends]).sum()
    by_role = np.bincount(measured.role[ends], effects[ends], len(ROLES))
    found |= {f"sign.role_{name}": ratio(by_role[n], size) for n, name in enumerate(ROLES)}
    found["sign.token"] = ratio(direct[tokens].sum(), row)
    for kind, name in ((FEATURE, "feature"), (ERROR, "error")):
        rows = measured.is_kind(kind)
        by_layer = np.bincount(measured.nodes.layer[rows], direct[rows], measured.n_layers)
        for layer in range(measured.n_layers):
            found[f"sign.{name}_{layer}"] = ratio(by_layer[layer], row)
    return found


def _direct(measured: MeasuredGraph, start: np.ndarray) -> Float64[np.ndarray, " N"]:
    edges = measured.edges
    rows = np.flatnonzero(start[edges.target])
    flow = start[edges.target[rows]] * edges.weight[rows]
    return np.bincount(edges.source[rows], flow, len(start))


def _balance(name: str, values: np.ndarray) -> dict[str, float]:
    sizes = -np.sort(-np.abs(values))
    total = sizes.sum()
    return {
        f"sign.{name}_against": ratio(-values[values < 0].sum(), total),
        f"sign.{name}_cancelled": 1 - ratio(abs(values.sum()), total) if total > 0 else 0.0,
        f"sign.{name}_gini": gini(values),
        f"sign.{name}_top1": ratio(sizes[:1].sum(), total),
        f"sign.{name}_top5": ratio(sizes[:5].sum(), total),
    }


def _rivals(measured: MeasuredGraph) -> dict[str, float]:
    """What the two likeliest explained logits share."""
    likeliest = _likeliest(measured)
    if len(likeliest) < 2:
        return {"sign.agreement": 1.0, "sign.runner_up": 0.0}
    rows = []
    for logit in likeliest[:2]:
        start = np.zeros(len(measured.nodes))
        start[logit] = 1
        rows.append(_direct(measured, start)[measured.counted])
    first, second = rows
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    support = [row[row > 0].sum() for row in rows]
    return {
        "sign.agreement": ratio(first @ second, lengths),
        "sign.runner_up": ratio(support[1], support[0] + support[1]),
    }


_NAMES = {definition.name for definition in DEFINITIONS}
SIGN = Family(about="what speaks for and against", definitions=DEFINITIONS, measure=_measure)
