"""From interventions to taps: everything that can be wrong is found here, before the model runs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import FeatureSite
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.clock import Clock
from pellucid.interventions.edits import FeatureGroup, Group, Taps, ValueGroup
from pellucid.interventions.gating import GateReader
from pellucid.interventions.kernels import Source
from pellucid.interventions.operations import (
    Add,
    Clamp,
    Custom,
    PatchFrom,
    ProjectOut,
    Scale,
    Set,
)
from pellucid.interventions.prompts import Batch, pad
from pellucid.interventions.receipts import Receipt
from pellucid.interventions.selection import Prompted
from pellucid.interventions.spec import Gate, Intervention
from pellucid.interventions.targets import View, dictionary_of, order_of, view_of, width_of
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapPoint, capture

_OVERWRITING = (Set, PatchFrom, Clamp)
_ON_FEATURES = (Add, Set, Scale, Clamp)


class Plan:
    """Interventions made ready for a run.

    Args:
        model: the model that will run.
        interventions: the edits, applied in this order where they meet.
        dictionaries: of the features they name.
        batch: the prompts; None to take them from the forwards themselves.
        new_tokens: the most tokens that follow a prompt; None for as many as the context holds.
        until: for each prompt, the first position that no edit may touch; None for no limit.

    Raises:
        SiteError: a place that the model does not have.
        InterventionError: anything else that is wrong with them.
    """

    def __init__(
        self,
        model: LanguageModel,
        interventions: Sequence[Intervention],
        *,
        dictionaries: DictionarySet | None = None,
        batch: Batch | None = None,
        new_tokens: int | None = None,
        until: Sequence[int] | None = None,
    ) -> None:
        self._model = model
        self._interventions = list(interventions)
        self._dictionaries = dictionaries
        self._new_tokens = new_tokens
        self._until = until
        self._clock = Clock(batch, self._schedule)
        for each in self._interventions:
            _check(model, each, dictionaries)
        if dictionaries is not None:
            dictionaries.check_model(model, every_layer=False)
        self._gates: dict[tuple[Any, ...], GateReader] = {}
        self._groups = list(self._grouped())
        self.receipt = Receipt([group.tally for group in self._groups], self._interventions)
        if batch is not None:
            self._schedule(batch)

    @property
    def taps(self) -> Taps:
        """What to do where; gates read before anything is edited."""
        edits = [tap for group in self._groups for tap in group.taps]
        return [gate.tap for gate in self._gates.values()] + edits

    def tick(self, arguments: Mapping[str, Any]) -> None:
        """A forward with these arguments is about to run."""
        self._clock.tick(arguments)
        for gate in self._gates.values():
            gate.start()
        for group in self._groups:
            group.start()

    def finish(self) -> None:
        """That forward has run to its end.

        Raises:
            InterventionError: it computed tokens that an intervention selects, and its place was
                not reached.
        """
        for group in self._groups:
            group.finish()

    def _grouped(self) -> Iterator[Group]:
        """Interventions of one place and kind together, as far as their order allows."""
        waiting: list[list[Intervention]] = []
        for each in self._interventions:
            mates = self._mates(each, waiting)
            if mates is None:
                waiting.append([each])
            else:
                mates.append(each)
        sources = _sources(self._model, self._interventions)
        for group in waiting:
            first, gate = group[0], self._gate(group[0].gate)
            if isinstance(first.site, FeatureSite):
                dictionary = dictionary_of(first.site, self._dictionaries)
                yield FeatureGroup(group, self._model, dictionary, self._clock, gate)
                continue
            view = view_of(self._model, first.site)
            source = _source(group, view, sources)
            yield ValueGroup(group, view, self._clock, gate, source)

    def _mates(
        self, intervention: Intervention, waiting: Sequence[list[Intervention]]
    ) -> list[Intervention] | None:
        """The last group to join before one that the intervention must come after."""
        own = _points(self._model, intervention, self._dictionaries)
        for group in reversed(waiting):
            if _joins(intervention, group):
                return group
            if own & _points(self._model, group[0], self._dictionaries) and any(
                _share_rows(intervention, each) for each in group
            ):
                return None
        return None

    def _gate(self, gate: Gate | None) -> GateReader | None:
        if gate is None:
            return None
        if gate.key not in self._gates:
            reader = GateReader(self._model, gate, self._dictionaries, self._clock)
            self._gates[gate.key] = reader
        return self._gates[gate.key]

    def _schedule(self, batch: Batch) -> None:
        """Resolve every where-clause against the prompts."""
        prompted = Prompted(self._model, batch, self._new_tokens, self._until)
        for group in self._groups:
            tables = []
            for each in group.members:
                rows = prompted.rows(each.rows)
                table = prompted.table(each.where, rows)
                if not table.any():
                    raise InterventionError(
                        f"the intervention {each.op.name} at {each.site} selects no token that "
                        "this run can edit; check its where-clause and the mode"
                    )
                tables.append((rows, table))
            group.selection.fill(prompted, tables)
            group.prepare()
        for gate in self._gates.values():
            gated = [group.selection.rows for group in self._groups if group.gate is gate]
            gate.fill(prompted, np.unique(np.concatenate(gated)).tolist())
        self._refuse_conflicts()

    def _refuse_conflicts(self) -> None:
        overwriting: dict[str, list[tuple[Intervention, np.ndarray, np.ndarray]]] = {}
        for group in self._groups:
            for number, each in enumerate(group.members):
                on_feature = isinstance(each.site, FeatureSite)
                if isinstance(each.op, _OVERWRITING) or (on_feature and isinstance(each.op, Scale)):
                    own = group.selection.members == number
                    entry = each, group.selection.rows[own], group.selection.table[own]
                    overwriting.setdefault(_spot(self._model, each), []).append(entry)
        for entries in overwriting.values():
            for (one, rows, table), (other, other_rows, other_table) in combinations(entries, 2):
                shared, here, there = np.intersect1d(rows, other_rows, return_indices=True)
                both = (table[here] & other_table[there]).any(axis=1)
                if both.any() and _overlap(self._model, one, other):
                    raise InterventionError(
                        f"{one.op.name} at {one.site} and {other.op.name} at {other.site} both "
                        f"fix the same tokens of row {int(shared[both.argmax()])}; keep one of them"
                    )


def _points(
    model: LanguageModel, intervention: Intervention, dictionaries: DictionarySet | None
) -> set[TapPoint]:
    """The tensors that an intervention reads or writes."""
    if not isinstance(intervention.site, FeatureSite):
        return {view_of(model, intervention.site).point}
    dictionary = dictionary_of(intervention.site, dictionaries)
    return {model.point(site) for site in (dictionary.read_site, *dictionary.write_sites)}


def _share_rows(one: Intervention, other: Intervention) -> bool:
    if one.rows is None or other.rows is None:
        return True
    return not set(one.rows).isdisjoint(other.rows)


def _joins(intervention: Intervention, group: Sequence[Intervention]) -> bool:
    """Whether an intervention can be computed together with a group."""
    first = group[0]
    gates = [None if each.gate is None else each.gate.key for each in (intervention, first)]
    if gates[0] != gates[1]:
        return False
    if isinstance(first.site, FeatureSite):
        return isinstance(intervention.site, FeatureSite) and (
            intervention.site.layer == first.site.layer
        )
    if intervention.site != first.site or type(intervention.op) is not type(first.op):
        return False
    if isinstance(first.op, Custom):
        return False
    if isinstance(first.op, Set) and isinstance(intervention.op, Set):
        kinds = {isinstance(each.value, Tensor) for each in (first.op, intervention.op)}
        if len(kinds) > 1:
            return False
    return not any(_share_rows(intervention, each) for each in group)


def _check(
    model: LanguageModel, intervention: Intervention, dictionaries: DictionarySet | None
) -> None:
    """Refuse what is wrong whatever the prompts are."""
    site, op = intervention.site, intervention.op
    if isinstance(site, FeatureSite):
        dictionary_of(site, dictionaries)
        wrong = not isinstance(op, _ON_FEATURES) or _vector_of(op) is not None
        if wrong:
            raise InterventionError(
                f"{op.name} cannot act as given on the feature {site}; use clamp or set with a "
                "number, scale, or add with a strength and no vector"
            )
    else:
        view_of(model, site)
        if isinstance(op, Clamp) or (isinstance(op, Add) and op.vector is None):
            raise InterventionError(
                f"{op.name} without a vector acts on features, and {site} is none; name a feature "
                "as in 'feature@5[123]', or give a vector"
            )
        vector, width = _vector_of(op), width_of(model, site)
        if vector is not None and width is not None and vector.shape[-1:] != (width,):
            raise InterventionError(
                f"{op.name} at {site} has a vector of shape {tuple(vector.shape)}; the site has "
                f"width {width}"
            )
    if isinstance(op, PatchFrom):
        model.encode_ids(op.ids)
    if intervention.gate is not None:
        gated, gate = (order_of(p, dictionaries) for p in (site, intervention.gate.site))
        if gated is not None and gate is not None and gate > gated:
            raise InterventionError(
                f"the gate at {intervention.gate.site} is computed after {site}, which it gates; "
                "read it earlier"
            )


def _vector_of(op: object) -> Tensor | None:
    if isinstance(op, ProjectOut):
        return op.directions
    given = op.vector if isinstance(op, Add) else op.value if isinstance(op, Set) else None
    return given if isinstance(given, Tensor) else None


def _spot(model: LanguageModel, intervention: Intervention) -> str:
    """The tensor (or the feature) that an intervention overwrites."""
    site = intervention.site
    return str(site) if isinstance(site, FeatureSite) else str(view_of(model, site).point)


def _overlap(model: LanguageModel, one: Intervention, other: Intervention) -> bool:
    """Whether two interventions on one tensor share columns of it."""
    if isinstance(one.site, FeatureSite) or isinstance(other.site, FeatureSite):
        return True
    columns = [view_of(model, each).columns for each in (one.site, other.site)]
    if columns[0] is None or columns[1] is None:
        return True
    return bool(torch.isin(columns[0], columns[1]).any())


_Sources = tuple[dict[tuple[int, ...], int], dict[Any, Tensor]]


@torch.no_grad()
def _sources(model: LanguageModel, interventions: Sequence[Intervention]) -> _Sources:
    """One unedited run of all prompts that are patched from: their rows, and values by point."""
    patches = [each for each in interventions if isinstance(each.op, PatchFrom)]
    rows: dict[tuple[int, ...], int] = {}
    points = []
    for each in patches:
        assert isinstance(each.op, PatchFrom) and not isinstance(each.site, FeatureSite)
        rows.setdefault(each.op.ids, len(rows))
        points.append(view_of(model, each.site).point)
    if not rows:
        return {}, {}
    ids = [torch.tensor(each, device=model.device) for each in rows]
    batch = pad(model, ids, left=False)
    return rows, capture(
        model.module, list(dict.fromkeys(points)), lambda: model.forward(batch.ids, batch.mask)
    )


def _source(group: Sequence[Intervention], view: View, sources: _Sources) -> Source | None:
    """The values that a group patches from."""
    rows, values = sources
    own = [rows[each.op.ids] for each in group if isinstance(each.op, PatchFrom)]
    return Source(view.read(values[view.point])[own].flatten(2)) if own else None
