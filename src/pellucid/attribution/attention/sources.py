"""Sources of the attribution matrix by name, and what each writes where."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.columns import SourceTable, source_nodes
from pellucid.attribution.linearise import LinearModel
from pellucid.core.types import Site


@dataclass(frozen=True, slots=True)
class SourceKey:
    """A source as a graph's node table names it: kind, layer, position and index (-1: none)."""

    kind: str
    layer: int
    position: int
    index: int

    def to_json(self) -> dict[str, Any]:
        """`kind`, and what else there is of `layer`, `position` and `index`."""
        named = {"layer": self.layer, "position": self.position, "index": self.index}
        return {"kind": self.kind} | {name: value for name, value in named.items() if value >= 0}


class SourceNames:
    """What every source is, all constants counted as one source, the last.

    Attributes:
        kind: of each source, an index into `KINDS`.
        layer, position, index: as in the node table of a graph; -1 where there is none.
    """

    KINDS: ClassVar = ("feature", "error", "token", "constant")

    def __init__(self, linear: LinearModel, table: SourceTable) -> None:
        nodes = source_nodes(linear, table)
        self.kind, self.layer, self.position, self.index = (
            torch.from_numpy(nodes[name][: table.bias_start + 1]).long()
            for name in ("kind", "layer", "position", "index")
        )

    def __len__(self) -> int:
        return len(self.kind)

    def merged(self, columns: Float[Tensor, "M h"]) -> Float[Tensor, "C h"]:
        """All columns of the table -> all sources, the constants summed."""
        constant = columns[len(self) - 1 :].sum(dim=0, keepdim=True)
        return torch.cat([columns[: len(self) - 1], constant])

    def one_hot(self, sources: Int[Tensor, " n"], dtype: torch.dtype) -> Float[Tensor, "n 4"]:
        """The kinds of some sources, in the given type."""
        return torch.eye(len(self.KINDS), dtype=dtype)[self.kind[sources]]

    def sums(self, values: Float[Tensor, "C h"]) -> Float[Tensor, "4 h"]:
        """Values of all sources summed by kind."""
        return values.new_zeros(len(self.KINDS), values.shape[1]).index_add(0, self.kind, values)

    def key(self, source: int) -> SourceKey:
        """One source by name."""
        return SourceKey(
            self.KINDS[int(self.kind[source])],
            int(self.layer[source]),
            int(self.position[source]),
            int(self.index[source]),
        )

    def describe(self, source: int) -> dict[str, Any]:
        """One source as JSON: `kind`, and `layer`, `position` and `index` where it has them."""
        return self.key(source).to_json()


@dataclass(frozen=True, slots=True)
class Write:
    """A vector that a source adds at a site, at the source's position."""

    site: Site
    vector: Float[Tensor, " d"]


def writes(linear: LinearModel, key: SourceKey) -> list[Write]:
    """What a feature, an error or a token writes into the residual stream, and where."""
    if key.kind == "token":
        return [Write(Site("embed"), linear.tokens[key.position])]
    layer = linear.local.layers[key.layer]
    if key.kind == "error":
        return [Write(layer.write_site, layer.error[key.position])]
    row = active_row(linear, key)
    return feature_writes(linear, key, layer.active.activations[row])


def active_row(linear: LinearModel, key: SourceKey) -> Int[Tensor, " 1"]:
    """Which of its layer's active features a feature is."""
    active = linear.local.layers[key.layer].active
    same = (active.positions == key.position) & (active.features == key.index)
    return same.nonzero().squeeze(1)


def feature_writes(
    linear: LinearModel, key: SourceKey, activation: Float[Tensor, " 1"]
) -> list[Write]:
    """What a feature, active or not, writes at some activation."""
    alone = replace(
        linear.local.layers[key.layer].active,
        positions=torch.tensor([key.position]),
        features=torch.tensor([key.index]),
        activations=activation,
    )
    slots = linear.local.slots(key.layer)
    return [Write(site, alone.written(slot)[0]) for slot, site in slots.items()]
