"""Running many patched copies of one recorded prompt, each from where its first patch is.

Copies that start at about the same token are one batch. The batch walks up the blocks; a copy joins
it at the block of its first patch, with the recorded residuals of the tokens that are computed.

Shape legend: N copies, R rows of a batch, S positions, T computed positions, d width, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import Site
from pellucid.interventions.tracing.slots import Slot
from pellucid.models.resume import RecordedRun
from pellucid.models.taps import TapCall, TapFunction, TapPoint

TOKENS_AT_ONCE = {"cpu": 512}
TOKENS_AT_ONCE_OTHERWISE = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    """One value put in place of what a copy computes.

    Attributes:
        slot: where.
        position: at which token.
        value: of the slot's width.
    """

    slot: Slot
    position: int
    value: Float[Tensor, " w"]


Copy = Sequence[Put]
"""All that is put into one copy of the prompt."""


@dataclass(frozen=True, slots=True)
class Patched:
    """What came of patched copies.

    Attributes:
        logits: at the last position of every copy.
        note: why the copies were run as a whole, where they had to be; "" otherwise.
    """

    logits: Float[Tensor, "N V"]
    note: str = ""


@torch.no_grad()
def patched_logits(
    run: RecordedRun,
    copies: Sequence[Copy],
    *,
    tokens_at_once: int | None = None,
    whole: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Patched:
    """Run every patched copy of a recorded prompt.

    One copy more without any patch goes with the last of them; unless it gives the run's own
    logits, all copies are run again as a whole.

    Args:
        run: the prompt.
        copies: what is put where, a copy each; one without patches gives the run's own logits.
        tokens_at_once: the most tokens of a batch; the device's default if not given.
        whole: run the whole model on every copy, whether or not that is needed.
        on_progress: called with how many copies are done, and of how many.
    """
    budget = tokens_at_once or TOKENS_AT_ONCE.get(run.ids.device.type, TOKENS_AT_ONCE_OTHERWISE)
    found = run.logits.new_empty(len(copies) + 1, len(run.logits))
    whole = whole or not run.resumes
    done = 0
    for start, chosen in _batches(run, [*copies, ()], budget, whole=whole):
        batch = [copies[index] if index < len(copies) else () for index in chosen]
        logits = _whole(run, batch) if whole else _walk(run, batch, start)
        found[torch.tensor(chosen, device=found.device)] = logits
        done += len(chosen)
        if on_progress is not None:
            on_progress(min(done, len(copies)), len(copies))
    if not whole and not run.is_own(found[-1]):
        again = patched_logits(
            run, copies, tokens_at_once=tokens_at_once, whole=True, on_progress=on_progress
        )
        return Patched(again.logits, "run as a whole: going on from the middle gave other logits")
    note = "" if run.resumes else "run as a whole: the attention fills no cache"
    return Patched(found[:-1], note)


def _first_layer(copy: Copy) -> int:
    return min((put.slot.layer for put in copy), default=0)


def _batches(
    run: RecordedRun, copies: Sequence[Copy], budget: int, *, whole: bool
) -> Iterator[tuple[int, list[int]]]:
    """Copies that are computed together, in the order in which they join, and from which token.

    The last copy, the one without patches, goes with those that start last.
    """
    first = [min((put.position for put in copy), default=0) for copy in copies]
    first[-1] = max(first)
    order = sorted(range(len(copies)), key=lambda index: (first[index], index))
    at = 0
    while at < len(order):
        start = 0 if whole else first[order[at]]
        rows = max(1, budget // (len(run.ids) - start))
        batch = order[at : at + rows]
        at += len(batch)
        yield start, sorted(batch, key=lambda index: _first_layer(copies[index]))


def _walk(run: RecordedRun, batch: Sequence[Copy], start: int) -> Float[Tensor, "R V"]:
    """Up the blocks from the first that is patched, for the tokens from `start` on."""
    edits = _by_layer(batch, start)
    joins = [_first_layer(copy) for copy in batch]
    hidden = run.residuals[0][None, start:][:0]
    for layer in range(joins[0], run.model.n_layers + 1):
        if new := joins.count(layer):
            own = run.residuals[layer][None, start:].expand(new, -1, -1)
            hidden = torch.cat([hidden, own])
        for edit in edits[layer]:
            if edit.slot.entry:
                hidden = edit.apply(hidden)
        taps = [(edit.slot.point, edit.tap) for edit in edits[layer] if not edit.slot.entry]
        if layer == run.model.n_layers - 1 and not taps and not edits[layer + 1]:
            return run.head(run.last_token(hidden, start=start)[:, 0])
        if layer < run.model.n_layers:
            with run.model.tapped(taps):
                hidden = run.block(layer, hidden, start=start)
    return run.head(hidden[:, -1])


def _whole(run: RecordedRun, batch: Sequence[Copy]) -> Float[Tensor, "R V"]:
    """The whole model on every copy: where going on from the middle does not work."""

    def begin(value: Tensor, _: TapCall) -> Tensor:
        return run.residuals[0].expand_as(value)

    taps: list[tuple[TapPoint, TapFunction]] = [(run.model.point(Site("embed")), begin)]
    for here in _by_layer(batch, 0).values():
        taps += [(edit.slot.point, edit.tap) for edit in here]
    with run.model.tapped(taps):
        return run.model.logits(run.ids.expand(len(batch), -1))[:, -1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Edit:
    """All that is put at one point: values, and where in its tensor."""

    slot: Slot
    rows: Int[Tensor, " n"]
    positions: Int[Tensor, " n"]
    columns: Int[Tensor, "n w"] | None
    values: Float[Tensor, "n w"]

    def apply(self, tensor: Float[Tensor, "R T D"]) -> Float[Tensor, "R T D"]:
        """The tensor with the values in it."""
        values = self.values.to(tensor.dtype)
        if self.columns is None:
            return tensor.index_put((self.rows, self.positions), values)
        where = (self.rows[:, None], self.positions[:, None], self.columns)
        return tensor.index_put(where, values)

    def tap(self, value: Tensor, _: TapCall) -> Tensor:
        """The same, as a tap."""
        return self.apply(value)


def _by_layer(batch: Sequence[Copy], start: int) -> dict[int, list[_Edit]]:
    """What is put into a batch whose first token is `start`."""
    groups: dict[tuple[TapPoint, int | None], list[tuple[int, Put]]] = defaultdict(list)
    for row, copy in enumerate(batch):
        for put in copy:
            width = None if put.slot.columns is None else len(put.slot.columns)
            groups[put.slot.point, width].append((row, put))
    edits: dict[int, list[_Edit]] = defaultdict(list)
    for placed in groups.values():
        slot = placed[0][1].slot
        values = torch.stack([put.value for _, put in placed])
        device = values.device
        columns = [put.slot.columns for _, put in placed if put.slot.columns is not None]
        edits[slot.layer].append(
            _Edit(
                slot=slot,
                rows=torch.tensor([row for row, _ in placed], device=device),
                positions=torch.tensor([put.position - start for _, put in placed], device=device),
                columns=torch.stack(columns).to(device) if columns else None,
                values=values,
            )
        )
    return edits
