"""A whole chain repaired: step by step, and after a mended step written on from there."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.models.model import LanguageModel
from pellucid.verification.repair.judges import Judgement
from pellucid.verification.repair.mend import Mender, Mending
from pellucid.verification.repair.suspects import Accusation
from pellucid.verification.watching.segments import Segment, segmenter
from pellucid.verification.watching.streaming import stream

FALLBACK = "resample"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairedStep:
    """A step that was judged.

    Attributes:
        segment: as it was written.
        score: of the judge.
        flagged: whether it was called wrong.
        accusation: who was accused, of flagged steps.
        mendings: what was tried in turn; the last one may have been accepted.
    """

    segment: Segment
    score: float
    flagged: bool
    accusation: Accusation | None = None
    mendings: tuple[Mending, ...] = ()

    @property
    def outcome(self) -> str:
        """`verified`, `mended` or `abstained`."""
        if not self.flagged:
            return "verified"
        return "mended" if any(each.accepted for each in self.mendings) else "abstained"

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "number": self.segment.number,
            "text": self.segment.text,
            "before": self.segment.before,
            "score": self.score,
            "flagged": self.flagged,
            "outcome": self.outcome,
            "accusation": None if self.accusation is None else self.accusation.to_json(),
            "mendings": [each.to_json() for each in self.mendings],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairRecord:
    """A chain before and after.

    Attributes:
        ids: as it was given.
        repaired: as it became; the same where nothing was mended.
        steps: every step that was judged, in order.
        judge: who judged.
        seconds: processor time.
    """

    ids: tuple[int, ...]
    repaired: tuple[int, ...]
    steps: tuple[RepairedStep, ...]
    judge: dict[str, Any]
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether any step was mended."""
        return self.ids != self.repaired

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        outcomes = [step.outcome for step in self.steps]
        return {
            "ids": list(self.ids),
            "repaired": list(self.repaired),
            "changed": self.changed,
            "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
            "steps": [step.to_json() for step in self.steps],
            "judge": self.judge,
            "seconds": self.seconds,
        }


def repair(
    mender: Mender,
    ids: Sequence[int],
    *,
    language: str,
    arms: Sequence[str] = ("suspects", FALLBACK),
    max_mended: int = 8,
    seed: int = 0,
) -> RepairRecord:
    """Judge a chain's steps in order; mend the flagged ones, or leave them and say so.

    After a mended step the model writes the rest anew, greedily. A step that nothing mends stays
    as it is (`abstained`).

    Args:
        mender: of the model that wrote it.
        ids: the chain, special first token included.
        language: of its expressions, or `text`.
        arms: tried in this order; see `proposals.ARMS`.
        max_mended: the most steps to mend.
        seed: of what is random.

    Raises:
        PromptError: the chain cannot be cut into steps.
    """
    started, now = time.process_time(), list(ids)
    cutting = segmenter(mender.model, now, by=mender.by, language=language)
    found: list[RepairedStep] = []
    mended = 0
    while len(found) < len(segments := cutting.complete(_closed(now, cutting), ended=True)):
        segment = segments[len(found)]
        step = mender.flag(now, segment, language)
        if isinstance(step, Judgement):
            found.append(RepairedStep(segment=segment, score=step.score, flagged=False))
            continue
        tried: list[Mending] = []
        for arm in arms if mended < max_mended else ():
            tried.append(mender.mend(step, arm, seed=seed + len(found)))
            if tried[-1].accepted:
                break
        found.append(
            RepairedStep(
                segment=segment,
                score=step.judgement.score,
                flagged=True,
                accusation=step.accusation,
                mendings=tuple(tried),
            )
        )
        if tried and tried[-1].ids is not None:
            mended += 1
            now = _written_on(mender.model, list(tried[-1].ids))
    return RepairRecord(
        ids=tuple(ids),
        repaired=tuple(now) if mended else tuple(ids),
        steps=tuple(found),
        judge=mender.judge.record(),
        seconds=time.process_time() - started,
    )


def _closed(ids: list[int], cutting: Any) -> list[int]:
    """The chain up to the last token behind which all its steps are complete."""
    for stop in range(len(ids), 0, -1):
        if cutting.complete(ids[:stop], ended=True):
            return ids[:stop]
    return ids


def _written_on(model: LanguageModel, ids: list[int]) -> list[int]:
    if len(ids) >= model.context_length:
        return ids
    return [*ids, *(token.id for token in stream(model, ids))]
