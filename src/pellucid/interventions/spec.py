"""What an intervention is: immutable data, readable and writable as JSON, with a content hash."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import ConfigError, InterventionError
from pellucid.core.places import Place
from pellucid.interventions.operations import OPERATIONS, Custom, Operation
from pellucid.interventions.values import finite, place, vector, wholes
from pellucid.interventions.where import EVERYWHERE, Where
from pellucid.models.model import Edit, LanguageModel

Measure = Literal["dot", "cosine"]
Reduce = Literal["here", "max", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gate:
    """Opens an intervention at a token, row by row, when a reading there passes a threshold.

    The reading at a token is made of values at that token and before, never of later ones, so that
    it is the same whether a prompt is read at once, in chunks, or token by token.

    Attributes:
        site: what is read; it must come before the edited site in the computation. A feature's
            site reads its activation.
        vector: read along it: `x . vector + bias`, or the cosine; None at a feature.
        threshold: to be passed.
        bias: added to a dot product.
        measure: `dot` (a probe) or `cosine`.
        over: tokens that count.
        reduce: `here`: the token's own reading; `max` or `mean`: over the counted tokens so far
            (`mean` averages the values first, then reads: Lee et al. 2024, CAST).
        above: open above the threshold, or else below it.
    """

    site: Place
    vector: Float[Tensor, " d"] | None = None
    threshold: float
    bias: float = 0.0
    measure: Measure = "dot"
    over: Where = EVERYWHERE
    reduce: Reduce = "here"
    above: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", place(self.site))
        if self.measure not in get_args(Measure) or self.reduce not in get_args(Reduce):
            raise InterventionError(
                f"a gate has measure {self.measure!r} and reduce {self.reduce!r}; use "
                f"{' or '.join(get_args(Measure))}, and {', '.join(get_args(Reduce))}"
            )
        if not isinstance(self.above, bool):
            raise InterventionError(f"above of a gate is {self.above!r}; write true or false")
        for name in ("threshold", "bias"):
            value = finite(f"the {name} of a gate", getattr(self, name))
            object.__setattr__(self, name, value)
        if self.vector is not None:
            object.__setattr__(self, "vector", vector("the vector of a gate", self.vector).float())

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for gates that read the same and open at the same."""
        values = None if self.vector is None else self.vector.detach().cpu().numpy().tobytes()
        rest = (getattr(self, name) for name in _fields(Gate) if name != "vector")
        return values, *rest


@dataclass(frozen=True, slots=True, eq=False)
class Intervention:
    """One edit: at `site` do `op` to the tokens of `where`, in some rows, when the gate is open.

    Attributes:
        site: the place, or its name in any spelling of `core.places`.
        op: what is done.
        where: which tokens, by absolute position.
        rows: which rows of the batch; None for all.
        gate: when; None for always.

    Raises:
        InterventionError: a part is malformed.
        SiteError: the name of the site cannot be read.
    """

    site: Place
    op: Operation
    where: Where = EVERYWHERE
    rows: tuple[int, ...] | None = None
    gate: Gate | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", place(self.site))
        if self.rows is not None:
            rows = wholes("rows", self.rows)
            if not rows or min(rows) < 0 or len(set(rows)) != len(rows):
                raise InterventionError(
                    f"rows are {rows}; give distinct row numbers from 0, or None for all rows"
                )
            object.__setattr__(self, "rows", rows)

    def attach(
        self, model: LanguageModel, edits: Sequence[Edit], **options: Any
    ) -> AbstractContextManager[Any]:
        """`interventions.run.edit` with all of `edits`: what `LanguageModel.edit` calls."""
        from pellucid.interventions.run import edit

        own = [each for each in edits if isinstance(each, Intervention)]
        if len(own) < len(edits):
            raise InterventionError("edit was given something that is not an Intervention")
        return edit(model, own, **options)

    @property
    def hash(self) -> str:
        """Of the content: equal for equal interventions, whatever process wrote them."""
        return content_hash([self])

    def to_json(self) -> dict[str, Any]:
        """A record that `from_json` reads back exactly.

        Raises:
            InterventionError: a custom function cannot be written down.
        """
        if isinstance(self.op, Custom):
            raise InterventionError(
                f"the custom operation {self.op.label!r} cannot be written as JSON; use a built-in "
                f"one ({', '.join(OPERATIONS)})"
            )
        return self._record()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Intervention":
        """The inverse of `to_json`.

        Raises:
            InterventionError: unknown or missing keys, or values that cannot be read.
            SiteError: the site cannot be read.
        """
        given = dict(record)
        _require_keys("an intervention", given, {"site", "op"}, {"where", "rows", "gate"})
        return cls(
            site=given["site"],
            op=_operation(given["op"]),
            where=Where.from_json(given.get("where") or {}),
            rows=given.get("rows"),
            gate=None if given.get("gate") is None else _gate(given["gate"]),
        )

    def _record(self) -> dict[str, Any]:
        values = {name: getattr(self.op, name) for name in _fields(type(self.op))}
        values.pop("function", None)
        record: dict[str, Any] = {"site": str(self.site), "op": {self.op.name: _plain(values)}}
        if self.where != EVERYWHERE:
            record["where"] = self.where.to_json()
        if self.rows is not None:
            record["rows"] = list(self.rows)
        if self.gate is not None:
            gate = {name: getattr(self.gate, name) for name in _fields(Gate)}
            record["gate"] = _plain(gate | {"site": str(self.gate.site)})
            record["gate"]["over"] = self.gate.over.to_json()
        return record


def content_hash(interventions: Sequence[Intervention]) -> str:
    """A short hash of several interventions in their order; of custom ones by label."""
    records = [each._record() for each in interventions]
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()[:16]


def read_interventions(text: str) -> list[Intervention]:
    """Interventions of a JSON text: one record, or a list of them.

    Raises:
        InterventionError: not JSON, or a record cannot be read.
    """
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InterventionError(f"the interventions are not valid JSON ({error})") from None
    records = [records] if isinstance(records, dict) else records
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise InterventionError("interventions must be a JSON object or a list of objects")
    return [Intervention.from_json(record) for record in records]


def _fields(kind: type) -> list[str]:
    return [each.name for each in fields(kind)]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().float().cpu().tolist()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if each is not None}
    return list(value) if isinstance(value, tuple) else value


def _operation(record: Any) -> Operation:
    if not isinstance(record, dict) or len(record) != 1:
        raise InterventionError(
            f"op is {record!r}; write one operation and its values, as in "
            '{"scale": {"factor": 0.5}}'
        )
    ((name, values),) = record.items()
    if name == Custom.name:
        raise InterventionError("a custom operation cannot be read from JSON; give it in Python")
    try:
        return OPERATIONS[name](**values)
    except (ConfigError, TypeError) as error:
        raise InterventionError(f"operation {name!r} cannot be read ({error})") from None


def _gate(record: Any) -> Gate:
    if not isinstance(record, dict):
        raise InterventionError(f"gate is {record!r}; write an object with site and threshold")
    given = dict(record)
    _require_keys("a gate", given, {"site", "threshold"}, set(_fields(Gate)))
    given["over"] = Where.from_json(given.get("over") or {})
    return Gate(**given)


def _require_keys(what: str, given: dict[str, Any], needed: set[str], others: set[str]) -> None:
    missing, unknown = needed - set(given), set(given) - needed - others
    if missing or unknown:
        raise InterventionError(
            f"{what} has the keys {sorted(given)}; it needs {sorted(needed)} and may have "
            f"{sorted(others - needed)}"
        )
