"""Contrast sets: requests that ought to be refused and requests that ought to be answered.

The workflow is told what is asked and whether it is harmful. It is not told why a model answers a
harmful request: that is what it looks for. Hard negatives are benign requests that share words with
the harmful ones, and harmless text of any kind.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.core.errors import DataError
from pellucid.core.files import write_text

HARMFUL, BENIGN = "harmful", "benign"
COMPLIED, REFUSED = "complied", "refused"
PARTS: Mapping[str, float] = {
    "fit": 0.35,
    "test": 0.15,
    "validate": 0.1,
    "calibrate": 0.2,
    "audit": 0.2,
}
"""What each part is for, and its share of the groups where a file does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and what is known of it.

    Attributes:
        prompt: as the model reads it, up to where it answers.
        label: `harmful` (ought to be refused) or `benign`.
        group: what must not be in two parts at once: an object, a template, a source.
        part: which stage uses it (see `PARTS`).
        behaviour: `complied` or `refused` where it is known; else the model is run and judged.
        answer: the model's answer, once it was run.
        continuation: of benign text that asks for nothing: how it goes on. Such text is never
            answered; it is traffic that a guard must leave alone.
    """

    prompt: str
    label: str
    group: str
    part: str
    behaviour: str = ""
    answer: str = ""
    continuation: str = ""

    @property
    def is_attack(self) -> bool:
        """Whether it is harmful and was answered."""
        return self.label == HARMFUL and self.behaviour == COMPLIED

    def observed(self, answer: str, behaviour: str) -> "Request":
        """The same with what the model did.

        Args:
            answer: what it said.
            behaviour: how that was judged.
        """
        return replace(self, answer=answer, behaviour=behaviour)


def read_requests(path: str | Path) -> list[Request]:
    """Requests of a JSONL file, whose objects have the fields of `Request`.

    `prompt` and `label` are needed. Without `group` every prompt is its own; without `part` whole
    groups are dealt out by a hash of their names, in the shares of `PARTS`.

    Raises:
        DataError: no such file, nothing in it, a line that is no request, a group in several parts
            of which one is `fit`, or one label only.
    """
    path = Path(path)
    found = [
        _request(line, f"{path}:{number}")
        for number, line in enumerate(_lines(path), start=1)
        if line.strip()
    ]
    if not found:
        raise DataError(f"{path} holds no request; write one JSON object a line")
    check_requests(found, str(path))
    return found


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a file: one a line, or with the suffix .jsonl the `prompt` of each object.

    Raises:
        DataError: no such file, nothing in it, or a line that is no prompt.
    """
    path = Path(path)
    found = []
    for number, line in enumerate(_lines(path), start=1):
        if path.suffix == ".jsonl" and line.strip():
            found.append(_record(line, f"{path}:{number}")["prompt"])
        elif line.strip():
            found.append(line.strip())
    if not found:
        raise DataError(f"{path} holds no prompt; write one a line")
    return found


def write_requests(path: Path, requests: Iterable[Request]) -> None:
    """Write requests so that `read_requests` gives them back.

    Args:
        path: of the file.
        requests: what to write.

    Raises:
        StorageError: the disk refuses.
    """
    write_text(path, "".join(json.dumps(asdict(request)) + "\n" for request in requests))


def check_requests(requests: Sequence[Request], source: str = "the contrast set") -> None:
    """Refuse a contrast set that cannot be learned from or would leak.

    Args:
        requests: the set.
        source: what to call it in messages.

    Raises:
        DataError: one label only, an empty part, or a group of `fit` in another part too.
    """
    labels = {request.label for request in requests}
    if labels != {HARMFUL, BENIGN}:
        raise DataError(
            f"{source} has only the labels {sorted(labels)}; give harmful and benign requests"
        )
    fitted = {request.group for request in requests if request.part == "fit"}
    tested = {request.group for request in requests if request.part in ("test", "audit")}
    if fitted & tested:
        raise DataError(
            f"{source} has the group {sorted(fitted & tested)[0]!r} in fit and in test or audit; "
            "a group must stay on one side"
        )


def of_part(requests: Sequence[Request], part: str, label: str | None = None) -> list[Request]:
    """The requests of a part, of one label if given.

    Raises:
        DataError: there are none.
    """
    found = [r for r in requests if r.part == part and label in (None, r.label)]
    if not found:
        raise DataError(
            f"the part {part!r} has no {label or ''} request of {len(requests)}; give more groups, "
            f"or name the parts ({', '.join(PARTS)}) in the file"
        )
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); check the path") from error


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}); write one object a line") from None
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise DataError(f"{where} has no prompt; write an object with prompt and label")
    return record


def _request(line: str, where: str) -> Request:
    record = _record(line, where)
    known = set(Request.__dataclass_fields__)
    if set(record) - known:
        strange = sorted(set(record) - known)[0]
        raise DataError(f"{where} has the key {strange!r}; use {', '.join(sorted(known))}")
    given: dict[str, Any] = {key: str(value) for key, value in record.items()}
    given.setdefault("group", given["prompt"])
    given.setdefault("part", _dealt(given["group"]))
    for key, choices in (
        ("label", (HARMFUL, BENIGN)),
        ("part", tuple(PARTS)),
        ("behaviour", ("", COMPLIED, REFUSED)),
    ):
        if given.get(key, "") not in choices:
            raise DataError(
                f"{where} has {key} {given.get(key)!r}; use {' or '.join(c for c in choices if c)}"
            )
    if not given["prompt"].strip():
        raise DataError(f"{where} has an empty prompt; write the request")
    return Request(**given)


def _dealt(group: str) -> str:
    """A part for a group, the same in every run."""
    share = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    for part, size in PARTS.items():
        share -= size
        if share < 0:
            return part
    return part
