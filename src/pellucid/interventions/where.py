"""Where-clauses: which tokens an intervention edits, said by absolute position.

Position 0 is a row's first real token, whatever its padding; the prompt's positions come first and
generated token g stands at position `prompt length + g`. The LAST prompt position produces
generated token 0, so an edit meant to change the first generated token acts at position -1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from pellucid.core.errors import InterventionError
from pellucid.interventions.values import listed, whole, wholes

Spans = Callable[[str], Sequence[tuple[int, int]]]
"""The occurrences of a text in a row's prompt, each as half-open token positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A union of clauses; with none of them, every token but the special one that opens a prompt.

    Attributes:
        positions: absolute; negative ones count from the prompt's end.
        windows: half-open (start, stop); negative ends count from the prompt's end, a stop of
            None has no end, generated tokens included.
        spans: texts, wherever they occur in the prompt.
        prompt: every prompt token but the special one that opens it.
        generated: half-open window (start, stop or None) over the generated tokens.
        exclude: taken out again.
    """

    positions: tuple[int, ...] = ()
    windows: tuple[tuple[int, int | None], ...] = ()
    spans: tuple[str, ...] = ()
    prompt: bool = False
    generated: tuple[int, int | None] | None = None
    exclude: "Where | None" = None

    def __post_init__(self) -> None:
        for name, value in (
            ("positions", wholes("positions", self.positions)),
            ("windows", tuple(_ends("a window", each) for each in listed("windows", self.windows))),
            ("spans", tuple(listed("spans", self.spans))),
            ("generated", None if self.generated is None else _ends("generated", self.generated)),
        ):
            object.__setattr__(self, name, value)
        if not all(isinstance(text, str) and text for text in self.spans):
            raise InterventionError(
                f"spans are {self.spans}; write the texts whose tokens are meant"
            )
        if not isinstance(self.prompt, bool):
            raise InterventionError(f"prompt is {self.prompt!r}; write true or false")
        start, stop = self.generated or (0, None)
        if start < 0 or (stop is not None and stop <= start):
            raise InterventionError(
                f"generated is the window ({start}, {stop}); generated tokens are counted from 0, "
                "and the stop comes after the start"
            )

    @property
    def everywhere(self) -> bool:
        """Whether there is no clause (besides what is excluded)."""
        clauses = (self.positions, self.windows, self.spans, self.prompt)
        return not any(clauses) and self.generated is None

    def but(self, exclude: "Where") -> "Where":
        """The same without what another clause selects."""
        kept = {name: getattr(self, name) for name in _CLAUSES}
        return Where(**kept, exclude=exclude)

    def resolve(
        self, prompt_length: int, length: int, *, opener: bool, spans: Spans
    ) -> Bool[np.ndarray, " L"]:
        """Which of a row's positions 0 to `length` - 1 are selected.

        Args:
            prompt_length: tokens of the prompt.
            length: the most tokens the row can come to have.
            opener: whether position 0 holds a special token.
            spans: finds texts in the prompt.

        Raises:
            InterventionError: a position is outside the row, or a span does not occur.
        """
        chosen = np.zeros(length, dtype=bool)
        first = 1 if opener else 0
        if self.everywhere:
            chosen[first:] = True
        if self.prompt:
            chosen[first:prompt_length] = True
        for position in self.positions:
            chosen[_absolute(position, prompt_length, length)] = True
        for start, stop in self.windows:
            begin = _absolute(start, prompt_length, length)
            end = length if stop is None else _end(stop, prompt_length, length)
            if end <= begin:
                raise InterventionError(
                    f"the window ({start}, {stop}) holds no token of a prompt of {prompt_length}; "
                    "give a stop after its start"
                )
            chosen[begin:end] = True
        for text in self.spans:
            found = spans(text)
            if not found:
                raise InterventionError(
                    f"the span {text!r} does not occur in the prompt; copy it as the prompt has it"
                )
            for begin, end in found:
                chosen[begin:end] = True
        if self.generated is not None:
            begin, last = self.generated
            end = length if last is None else prompt_length + last
            chosen[prompt_length + begin : end] = True
        if self.exclude is not None:
            chosen &= ~self.exclude.resolve(prompt_length, length, opener=opener, spans=spans)
        return chosen

    def to_json(self) -> dict[str, Any]:
        """The clauses that are set."""
        record = {name: getattr(self, name) for name in _CLAUSES}
        kept = {name: _plain(value) for name, value in record.items() if value not in _UNSET}
        return kept if self.exclude is None else kept | {"exclude": self.exclude.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Where":
        """The inverse of `to_json`.

        Raises:
            InterventionError: an unknown clause, or one of the wrong shape.
        """
        if not isinstance(record, Mapping):
            raise InterventionError(f"where is {record!r}; write an object of clauses")
        unknown = set(record) - {*_CLAUSES, "exclude"}
        if unknown:
            raise InterventionError(
                f"where has no clause {sorted(unknown)[0]!r}; use {', '.join(_CLAUSES)} or exclude"
            )
        given = dict(record)
        if given.get("exclude") is not None:
            given["exclude"] = cls.from_json(given["exclude"])
        return cls(**given)


_CLAUSES = ("positions", "windows", "spans", "prompt", "generated")
_UNSET: tuple[Any, ...] = ((), None, False)

EVERYWHERE = Where()


def at(*positions: int) -> Where:
    """These positions; negative ones count from the prompt's end."""
    return Where(positions=positions)


def window(start: int, stop: int | None = None) -> Where:
    """Positions from `start` up to `stop`, or without end."""
    return Where(windows=((start, stop),))


def span(*texts: str) -> Where:
    """The tokens of these texts wherever they occur in the prompt."""
    return Where(spans=texts)


def generated(start: int = 0, stop: int | None = None) -> Where:
    """Generated tokens, counted from 0."""
    return Where(generated=(start, stop))


def _absolute(position: int, prompt_length: int, length: int) -> int:
    absolute = position + prompt_length if position < 0 else position
    if not 0 <= absolute < length:
        raise InterventionError(
            f"position {position} is beyond the {length} tokens that this run can have "
            f"(prompt: {prompt_length}); use -{prompt_length} to {length - 1}"
        )
    return absolute


def _ends(name: str, window: Any) -> tuple[int, int | None]:
    ends = listed(name, window)
    if len(ends) != 2:
        raise InterventionError(f"{name} is {window!r}; give its start and stop (or null)")
    return whole(name, ends[0]), None if ends[1] is None else whole(name, ends[1])


def _end(stop: int, prompt_length: int, length: int) -> int:
    return _absolute(stop - 1, prompt_length, length) + 1 if stop != 0 else 0


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value
