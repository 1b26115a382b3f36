"""What a model would have answered with a part of its computation changed: many changes at once.

The prompt ends right before the answer. It is run and recorded once; every change is a row of one
batch that goes on from there (`models.resume`). A change adds vectors to MLP outputs:
`(factor - 1) x activation x decoder row` for a feature, `(factor - 1) x error` for an error.

Shape legend: R rows, S positions, T of them computed, d model width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import Site
from pellucid.models.model import LanguageModel
from pellucid.models.resume import record
from pellucid.models.taps import TapCall, TapFunction
from pellucid.replacement.local import LocalReplacement
from pellucid.verification.repair.suspects import Suspect

ROWS = 64
"""The most changes in one batch."""


class Change(NamedTuple):
    """A vector added to a layer's MLP output at a position."""

    layer: int
    position: int
    vector: Float[Tensor, " d"]


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes that are made together.

    Attributes:
        changes: at distinct places or not; they add up.
    """

    changes: tuple[Change, ...]

    @property
    def first(self) -> int:
        """The first position that it touches."""
        return min(each.position for each in self.changes)


class Replay:
    """A prefix of a chain that ends before the answer.

    Args:
        model: the model under test.
        local: of a run of the chain, which may go on behind the prefix.
        length: tokens of the prefix.
    """

    def __init__(self, model: LanguageModel, local: LocalReplacement, length: int) -> None:
        self.model, self.local, self.length = model, local, length
        self._run = record(model, local.run.ids[None, :length])[0]

    @property
    def logits(self) -> Float[Tensor, " V"]:
        """Of the answer's first token, nothing changed."""
        return self._run.logits

    def edit(self, suspect: Suspect, factor: float) -> Edit:
        """A suspect scaled by a factor.

        Args:
            suspect: features or errors before the answer.
            factor: 0 takes it away, 2 doubles it.
        """
        return Edit(
            tuple(
                Change(suspect.layer, position, vector * (factor - 1))
                for position, vector in zip(suspect.positions, self.written(suspect), strict=True)
            )
        )

    def written(self, suspect: Suspect) -> list[Float[Tensor, " d"]]:
        """What a suspect writes at each of its positions."""
        layer = self.local.layers[suspect.layer]
        if suspect.index is None:
            return [layer.error[position] for position in suspect.positions]
        active = layer.active
        found = []
        for position in suspect.positions:
            here = (active.positions == position) & (active.features == suspect.index)
            rows = active.direction(active.features[here]) * active.activations[here, None]
            found.append(rows.sum(0))
        return found

    def random(self, edit: Edit, generator: torch.Generator) -> Edit:
        """A matched control: as long, in the same places, along features drawn at random.

        At each place the direction is that of a feature of the layer that is not active there.

        Args:
            edit: that it matches.
            generator: of the draw.
        """
        changes = []
        for layer, position, vector in edit.changes:
            active = self.local.layers[layer].active
            here = set(active.features[active.positions == position].tolist())
            pick = 0
            for _ in range(ROWS):
                pick = int(torch.randint(active.num_features, (1,), generator=generator))
                if pick not in here:
                    break
            direction = active.direction(torch.tensor([pick], device=vector.device))[0]
            length = vector.norm() / direction.norm().clamp_min(1e-30)
            changes.append(Change(layer, position, direction * length))
        return Edit(tuple(changes))

    @torch.no_grad()
    def outcomes(self, edits: Sequence[Edit]) -> Float[Tensor, "R V"]:
        """The logits of the answer's first token under each edit.

        Args:
            edits: at least one.
        """
        order = sorted(range(len(edits)), key=lambda number: -edits[number].first)
        found: dict[int, Tensor] = {}
        for batch in self._batches(edits, order):
            rows = self._outcomes([edits[number] for number in batch])
            found |= dict(zip(batch, rows, strict=True))
        return torch.stack([found[number] for number in range(len(edits))])

    def _batches(self, edits: Sequence[Edit], order: Sequence[int]) -> Iterator[list[int]]:
        """Those that touch the last position alone first, then the others; `ROWS` at most."""
        late = [n for n in order if edits[n].first == self.length - 1]
        early = [n for n in order if edits[n].first < self.length - 1]
        for part in (late, early):
            for start in range(0, len(part), ROWS):
                yield part[start : start + ROWS]

    def _outcomes(self, edits: Sequence[Edit]) -> Float[Tensor, "R V"]:
        start = min(edit.first for edit in edits)
        lowest = min(each.layer for edit in edits for each in edit.changes)
        n_layers, width = self.model.n_layers, self._run.residuals[0].shape[-1]
        added = self.logits.new_zeros(n_layers, len(edits), self.length - start, width)
        for row, edit in enumerate(edits):
            for layer, position, vector in edit.changes:
                added[layer, row, position - start] += vector
        hidden = self._run.residuals[lowest][start:].expand(len(edits), -1, -1)
        taps = [(Site("mlp_out", n), _adding(added[n])) for n in range(lowest, n_layers)]
        with self.model.tapped(taps):
            for layer in range(lowest, n_layers):
                hidden = self._run.block(layer, hidden, start=start)
        return self._run.head(hidden[:, -1])

    @contextmanager
    def edited(self, edit: Edit) -> Iterator[None]:
        """Every forward of one whole row computes with an edit, as long as the context lasts.

        Args:
            edit: of this prefix.
        """
        layers = sorted({each.layer for each in edit.changes})
        width, added = self._run.residuals[0].shape[-1], {}
        for layer in layers:
            added[layer] = self.logits.new_zeros(1, self.length, width)
        for layer, position, vector in edit.changes:
            added[layer][0, position] += vector
        taps = [(Site("mlp_out", layer), _adding(added[layer])) for layer in layers]
        with self.model.tapped(taps):
            yield


def _adding(vectors: Float[Tensor, "R T d"]) -> TapFunction:
    """Adds to the first T positions."""

    def add(value: Tensor, _: TapCall) -> Tensor:
        count = vectors.shape[1]
        if value.shape[1] == count:
            return value + vectors
        return torch.cat([value[:, :count] + vectors, value[:, count:]], dim=1)

    return add
