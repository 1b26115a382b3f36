"""Family `error`: how much of the prediction comes from what the dictionaries leave out."""

import numpy as np

from pellucid.graphs.tables import ERROR, TOKEN
from pellucid.verification.fingerprints.definition import Definition, Family
from pellucid.verification.fingerprints.measured import MeasuredGraph, ratio
from pellucid.verification.steps.place import ROLES

_INPUTS = "of the inputs' (tokens' and errors') influence"
_SIZE = "by the summed sizes of the inputs' effects (biases left out)"

DEFINITIONS = (
    Definition("error.total", f"share {_INPUTS} that errors hold"),
    Definition("error.layer_{layer}", f"share {_INPUTS} that errors of a layer hold"),
    Definition("error.layer_max", "the largest of these"),
    Definition(
        "error.role_{role}",
        f"share {_INPUTS} that errors at positions of a role hold",
        stands="text",
    ),
    Definition(
        "error.rate_{role}",
        "errors' part of the inputs' influence at positions of a role; 0 where there is none",
        stands="text",
    ),
    Definition("error.last", f"share {_INPUTS} that errors at the graph's last position hold"),
    Definition("error.largest", f"share {_INPUTS} that the most influential error holds"),
    Definition("error.effect", f"summed signed effects of the errors {_SIZE}", "-1..1"),
    Definition("error.effect_size", f"summed sizes of the errors' effects {_SIZE}"),
    Definition(
        "error.effect_layer_{layer}", f"summed effects of a layer's errors {_SIZE}", "-1..1"
    ),
    Definition(
        "error.effect_last", f"summed effects of errors at the last position {_SIZE}", "-1..1"
    ),
    Definition("error.direct", "errors' share of the logits' own rows by size"),
    Definition(
        "error.direct_effect",
        "summed signed weights of errors in the logits' own rows, by the size of those rows",
        "-1..1",
    ),
)


def _measure(measured: MeasuredGraph) -> dict[str, float]:
    errors = np.flatnonzero(measured.is_kind(ERROR))
    ends = np.flatnonzero(measured.is_kind(ERROR) | measured.is_kind(TOKEN))
    layer, role = measured.nodes.layer[errors], measured.role[errors]
    last = measured.nodes.position[errors] == measured.n_tokens - 1
    held, effects = measured.inputs[errors], measured.effects[errors]
    size = np.abs(measured.effects[ends]).sum()
    direct, row = measured.direct[errors], np.abs(measured.direct[measured.counted]).sum()
    by_layer = np.bincount(layer, held, measured.n_layers)
    by_role = np.bincount(role, held, len(ROLES))
    all_by_role = np.bincount(measured.role[ends], measured.inputs[ends], len(ROLES))
    effect_by_layer = np.bincount(layer, effects, measured.n_layers)
    found = {
        "error.total": float(held.sum()),
        "error.layer_max": float(by_layer.max(initial=0)),
        "error.last": float(held[last].sum()),
        "error.largest": float(held.max(initial=0)),
        "error.effect": ratio(effects.sum(), size),
        "error.effect_size": ratio(np.abs(effects).sum(), size),
        "error.effect_last": ratio(effects[last].sum(), size),
        "error.direct": ratio(np.abs(direct).sum(), row),
        "error.direct_effect": ratio(direct.sum(), row),
    }
    for number in range(measured.n_layers):
        found[f"error.layer_{number}"] = float(by_layer[number])
        found[f"error.effect_layer_{number}"] = ratio(effect_by_layer[number], size)
    for number, name in enumerate(ROLES):
        found[f"error.role_{name}"] = float(by_role[number])
        found[f"error.rate_{name}"] = ratio(by_role[number], all_by_role[number])
    return found


ERRORS = Family(about="what dictionaries leave out", definitions=DEFINITIONS, measure=_measure)
