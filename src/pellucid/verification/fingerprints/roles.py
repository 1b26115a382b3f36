"""Family `role`: which tokens the prediction rests on, by what they are to the step.

The roles are those of `verification.steps.place.ROLES`; roles of positions after the graph's last
one hold nothing. Operands are tokens that are a number or a truth value.
"""

import re

import numpy as np
from jaxtyping import Bool

from pellucid.graphs.tables import ERROR, FEATURE, TOKEN
from pellucid.verification.fingerprints.definition import Definition, Family
from pellucid.verification.fingerprints.measured import MeasuredGraph, entropy, ratio
from pellucid.verification.steps.place import ROLES

_ALL = "share of all nodes' influence"
_INPUTS = "share of the inputs' (tokens' and errors') influence"
_OPERAND = re.compile(r"\s*(-?\d+(\.\d+)?|true|false)\s*", re.IGNORECASE)

DEFINITIONS = (
    Definition(
        "role.feature_{layer}_{role}", f"{_ALL} held by features of a layer and role", stands="text"
    ),
    Definition(
        "role.error_{layer}_{role}", f"{_ALL} held by errors of a layer and role", stands="text"
    ),
    Definition("role.token_{role}", f"{_ALL} held by tokens of a role", stands="text"),
    Definition("role.all_{role}", f"{_ALL} held at positions of a role", stands="text"),
    Definition("role.input_{role}", f"{_INPUTS} held at positions of a role", stands="text"),
    Definition(
        "role.focus_{role}",
        "influence at a role against its share p of the positions: s / (s + p), .5 where it holds "
        "as much as any; 0 where the role has no position",
        stands="text",
    ),
    Definition(
        "role.effect_{role}",
        "summed signed effects of the inputs at a role by the summed sizes of all inputs' effects",
        "-1..1",
        stands="text",
    ),
    Definition("role.entropy", "entropy of influence over positions, as a part of the largest"),
    Definition("role.input_entropy", "the same of the inputs' influence"),
    Definition("role.top", f"{_ALL} at the most influential position but the last"),
    Definition("role.last", f"{_ALL} at the graph's last position"),
    Definition("role.operands", f"{_INPUTS} at the operands of the rewritten part", stands="text"),
    Definition(
        "role.operand_part",
        "their part of the inputs' influence at the whole rewritten part",
        stands="text",
    ),
    Definition(
        "role.operand_balance",
        "the least influential of these operands by the most influential; 0 for fewer than two",
        stands="text",
    ),
    Definition(
        "role.operand_effect",
        "summed signed effects of the inputs at these operands by those of all inputs' sizes",
        "-1..1",
        stands="text",
    ),
    Definition(
        "role.copied_part", "the kept part among the influence of the inputs of both", stands="text"
    ),
)


def _measure(measured: MeasuredGraph) -> dict[str, float]:
    size = len(ROLES)
    where = np.flatnonzero(measured.counted)
    role, held, inputs = measured.role[where], measured.held[where], measured.inputs[where]
    ends = np.flatnonzero(measured.is_kind(ERROR) | measured.is_kind(TOKEN))
    effects = measured.effects[ends]
    scale = np.abs(effects).sum()
    all_, input_ = np.bincount(role, held, size), np.bincount(role, inputs, size)
    effect = np.bincount(measured.role[ends], effects, size)
    codes = np.array([ROLES.index(name) for name in measured.place.roles[: measured.n_tokens]])
    part = np.bincount(codes, minlength=size) / measured.n_tokens
    found = _cells(measured)
    for number, name in enumerate(ROLES):
        found[f"role.all_{name}"] = float(all_[number])
        found[f"role.input_{name}"] = float(input_[number])
        found[f"role.focus_{name}"] = ratio(all_[number], all_[number] + part[number])
        found[f"role.effect_{name}"] = ratio(effect[number], scale)
    kept, rewritten = input_[ROLES.index("kept")], input_[ROLES.index("rewritten")]
    found["role.copied_part"] = ratio(kept, kept + rewritten)
    position = measured.nodes.position
    by_position = np.bincount(position[where], held, measured.n_tokens)
    inputs_at = np.bincount(position[where], inputs, measured.n_tokens)
    effects_at = np.bincount(position[ends], effects, measured.n_tokens)
    operands = _operands(measured) & (codes == ROLES.index("rewritten"))
    of_operands = inputs_at[operands]
    return found | {
        "role.entropy": entropy(by_position),
        "role.input_entropy": entropy(inputs_at),
        "role.top": float(by_position[:-1].max(initial=0)),
        "role.last": float(by_position[-1]),
        "role.operands": float(of_operands.sum()),
        "role.operand_part": ratio(of_operands.sum(), rewritten),
        "role.operand_balance": ratio(of_operands.min(), of_operands.max())
        if len(of_operands) > 1
        else 0.0,
        "role.operand_effect": ratio(effects_at[operands].sum(), scale),
    }


def _cells(measured: MeasuredGraph) -> dict[str, float]:
    """Influence by kind, layer and role."""
    size, found = len(ROLES), {}
    for kind, name in ((FEATURE, "feature"), (ERROR, "error")):
        rows = np.flatnonzero(measured.kind == kind)
        cell = measured.nodes.layer[rows] * size + measured.role[rows]
        mass = np.bincount(cell, measured.held[rows], measured.n_layers * size)
        for layer in range(measured.n_layers):
            for number, role in enumerate(ROLES):
                found[f"role.{name}_{layer}_{role}"] = float(mass[layer * size + number])
    rows = np.flatnonzero(measured.kind == TOKEN)
    mass = np.bincount(measured.role[rows], measured.held[rows], size)
    return found | {f"role.token_{role}": float(mass[n]) for n, role in enumerate(ROLES)}


def _operands(measured: MeasuredGraph) -> Bool[np.ndarray, " P"]:
    """Which tokens are a number or a truth value."""
    return np.array([_OPERAND.fullmatch(text) is not None for text in measured.graph.tokens])


ROLE = Family(about="which tokens it rests on", definitions=DEFINITIONS, measure=_measure)
