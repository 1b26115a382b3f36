"""Groups of interventions at work: what is done at a tap when a forward reaches it.

Shape legend: R rows of the forward, S its columns, n selected tokens, w width of the place.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import FeatureSite
from pellucid.dictionaries.base import Dictionary
from pellucid.interventions.clock import Clock
from pellucid.interventions.gating import GateReader
from pellucid.interventions.kernels import Source, value_kernel
from pellucid.interventions.operations import Add, Clamp, PatchFrom, Scale, Set
from pellucid.interventions.receipts import Tally
from pellucid.interventions.selection import Entries, Selection
from pellucid.interventions.spec import Intervention
from pellucid.interventions.targets import View
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall, TapFunction, TapPoint

Taps = list[tuple[TapPoint, TapFunction]]


class Group(ABC):
    """Interventions that are computed together.

    Attributes:
        members: the interventions.
        selection: which tokens each edits.
        tally: what they did.
        gate: of all of them.
    """

    def __init__(
        self, members: Sequence[Intervention], clock: Clock, gate: GateReader | None
    ) -> None:
        self.members = list(members)
        self.selection = Selection()
        self.tally = Tally(members, self.selection)
        self._clock = clock
        self.gate = gate
        self._reached = 0

    @property
    @abstractmethod
    def taps(self) -> Taps:
        """What to do where."""

    @abstractmethod
    def prepare(self) -> None:
        """Called when the selection has been filled."""

    def start(self) -> None:
        """A forward begins."""
        self._reached = 0

    def finish(self) -> None:
        """A forward has run to its end.

        Raises:
            InterventionError: it computed selected tokens, and not every tap was reached.
        """
        if self._reached >= len(self.taps):
            return
        missed = self.selection.entries(self._clock, torch.device("cpu"))
        if missed is not None:
            each = self.members[int(missed.members[0])]
            raise InterventionError(
                f"the intervention {each.op.name} at {each.site} edited no token of a forward that "
                "computed tokens it selects: its place was never reached; choose one that every "
                "forward computes"
            )

    def _opened(self, entries: Entries) -> Tensor | None:
        return None if self.gate is None else self.gate.opened(entries.rows, entries.columns)


@final
class ValueGroup(Group):
    """One kind of operation at one place, at most one member a row.

    Args:
        members: the interventions.
        view: where the place is.
        clock: of the run.
        gate: of all members.
        source: for `patch_from`.
    """

    def __init__(
        self,
        members: Sequence[Intervention],
        view: View,
        clock: Clock,
        gate: GateReader | None,
        source: Source | None,
    ) -> None:
        super().__init__(members, clock, gate)
        self._view = view
        self._source = source
        self._kernel = value_kernel([each.op for each in members], source)

    @property
    def taps(self) -> Taps:
        """The edit."""
        return [(self._view.point, self._edit)]

    def prepare(self) -> None:
        """Align another run's positions."""
        if self._source is not None:
            operations = [each.op for each in self.members if isinstance(each.op, PatchFrom)]
            self._source.fill(operations, self.selection)

    def _edit(self, value: Tensor, _: TapCall) -> Tensor | None:
        self._reached += 1
        entries = self.selection.entries(self._clock, value.device)
        if entries is None:
            return None
        _require_tokens(value, self._clock, self.members[0])
        whole = value[entries.rows, entries.columns]
        old = self._view.read(whole).flatten(1)
        exact = old.to(torch.promote_types(old.dtype, torch.float32))
        opened = self._opened(entries)
        if _closed(opened):
            self.tally.count(entries, exact, None, opened)
            return None
        try:
            new = self._kernel(exact, entries)
        except (RuntimeError, IndexError) as error:
            raise _does_not_fit(self.members[0], old, str(error)) from error
        if new.shape != old.shape:
            raise _does_not_fit(self.members[0], old, f"it gives shape {tuple(new.shape)}")
        if opened is not None:
            new = torch.where(opened[:, None], new, exact)
        self.tally.count(entries, exact, new - exact, opened)
        new = new.to(value.dtype)
        if self._view.columns is not None:
            new = whole.index_copy(1, self._view.columns, new)
        return value.index_put((entries.rows, entries.columns), new.view_as(whole))


@final
class FeatureGroup(Group):
    """All edits of a dictionary's features: read at once, then written as one change.

    Every activation is read before any of them is edited, so the edits do not see each other.

    Args:
        members: the interventions, at features of that dictionary.
        model: the model.
        dictionary: theirs.
        clock: of the run.
        gate: of all members.
    """

    def __init__(
        self,
        members: Sequence[Intervention],
        model: LanguageModel,
        dictionary: Dictionary,
        clock: Clock,
        gate: GateReader | None,
    ) -> None:
        super().__init__(members, clock, gate)
        self._dictionary = dictionary
        self._read_point = model.point(dictionary.read_site)
        self._write_points = [model.point(site) for site in dictionary.write_sites]
        sites = [each.site for each in members]
        features = [each.feature for each in sites if isinstance(each, FeatureSite)]
        self._features = torch.tensor(features, device=model.device)
        shares = [_affine(each) for each in members]
        self._kept, self._added = torch.tensor(shares, device=model.device).unbind(1)
        self._pending: tuple[Entries, Tensor, Tensor | None] | None = None

    @property
    def taps(self) -> Taps:
        """Reading the features, then writing to each slot."""
        reads: Taps = [(self._read_point, self._read)]
        return reads + [
            (point, lambda value, _, slot=slot: self._write(value, slot))
            for slot, point in enumerate(self._write_points)
        ]

    def prepare(self) -> None:
        """Nothing depends on the selection."""

    def _read(self, value: Tensor, _: TapCall) -> None:
        self._pending = None
        self._reached += 1
        entries = self.selection.entries(self._clock, value.device)
        if entries is None:
            return
        _require_tokens(value, self._clock, self.members[0])
        tokens, rows = (entries.rows * value.shape[1] + entries.columns).unique(return_inverse=True)
        x = value.flatten(0, 1)[tokens]
        features = self._features[entries.members]
        activations = self._dictionary.activations_of(x, rows, features)
        kept, added = (each.to(activations)[entries.members] for each in (self._kept, self._added))
        amounts = (kept - 1) * activations + added
        opened = self._opened(entries)
        if opened is not None:
            amounts = amounts * opened
        self._pending = entries, amounts, opened

    def _write(self, value: Tensor, slot: int) -> Tensor | None:
        self._reached += 1
        if self._pending is None:
            return None
        entries, amounts, opened = self._pending
        directions = self._dictionary.decoder_rows(self._features[entries.members], slot)
        change = amounts[:, None] * directions.to(amounts.dtype)
        if slot == 0:
            self.tally.count(entries, value[entries.rows, entries.columns], change, opened)
        places = (entries.rows, entries.columns)
        exact = value.to(torch.promote_types(value.dtype, change.dtype))
        return exact.index_put(places, change.to(exact.dtype), accumulate=True)


def _affine(intervention: Intervention) -> tuple[float, float]:
    """(a, b) with new activation = a * activation + b."""
    op = intervention.op
    if isinstance(op, (Clamp, Set)):
        return 0.0, float(op.value)
    if isinstance(op, Scale):
        return op.factor, 0.0
    assert isinstance(op, Add), op
    return 1.0, op.strength


def _closed(opened: Tensor | None) -> bool:
    """Whether a gate is known to be closed everywhere; no device is waited for to know it."""
    return opened is not None and opened.device.type == "cpu" and not bool(opened.any())


def _require_tokens(
    value: Float[Tensor, "R S *w"], clock: Clock, intervention: Intervention
) -> None:
    if tuple(value.shape[:2]) != clock.positions.shape:
        raise InterventionError(
            f"{intervention.site} holds values of shape {tuple(value.shape)} in a forward of "
            f"{clock.positions.shape[0]} rows and {clock.positions.shape[1]} tokens; choose a site "
            "that has one value a token"
        )


def _does_not_fit(intervention: Intervention, old: Tensor, why: str) -> InterventionError:
    return InterventionError(
        f"{intervention.op.name} does not fit the values of width {old.shape[1]} at "
        f"{intervention.site} ({why}); give values of that width"
    )
