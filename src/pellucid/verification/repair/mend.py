"""One flagged step: accuse, try, verify; the first other answer that verifies is taken."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from pellucid.core.errors import DictionaryError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel
from pellucid.verification.reading.reader import Reader, ReaderSettings
from pellucid.verification.repair.judges import Judgement, StepJudge
from pellucid.verification.repair.kinds import kind_of
from pellucid.verification.repair.proposals import Proposal, Tries, proposals
from pellucid.verification.repair.replay import Replay
from pellucid.verification.repair.suspects import Accusation, accuse
from pellucid.verification.repair.usual import Usual
from pellucid.verification.watching.segments import Segment, segmenter
from pellucid.verification.watching.streaming import stream

_SLACK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A proposal that was put to the judge.

    Attributes:
        proposal: what was changed.
        text: the whole step that came of it.
        score: of that step.
        accepted: whether it was no longer flagged.
    """

    proposal: Proposal
    text: str
    score: float
    accepted: bool

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        made = self.proposal.to_json()
        return made | {"text": self.text, "score": self.score, "accepted": self.accepted}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mending:
    """What an arm made of a flagged step.

    Attributes:
        arm: of `proposals.ARMS`.
        verified: the answers that were verified, in order; only the last can be accepted.
        ids: the chain through the mended step; None where every answer was refused.
        segment: the mended step, None likewise.
        seconds: processor time.
    """

    arm: str
    verified: tuple[Verified, ...]
    ids: tuple[int, ...] | None
    segment: Segment | None
    seconds: float

    @property
    def accepted(self) -> bool:
        """Whether an answer was taken."""
        return self.ids is not None

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "arm": self.arm,
            "accepted": self.accepted,
            "text": None if self.segment is None else self.segment.text,
            "verified": [each.to_json() for each in self.verified],
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Flagged:
    """A flagged step, ready for any arm.

    Attributes:
        ids: the chain through the step.
        segment: the step.
        language: of the chain.
        judgement: what was said of it.
        accusation: who is accused of its answer.
        replay: the chain up to its answer.
    """

    ids: tuple[int, ...]
    segment: Segment
    language: str
    judgement: Judgement
    accusation: Accusation
    replay: Replay


class Mender:
    """Mends flagged steps of one model.

    Args:
        model: the model under test.
        dictionaries: transcoders of every layer, each from its MLP's input to its output.
        judge: flags steps, and verifies what came of them.
        usual: figures of right steps.
        tries: how much may be tried.
        by: how steps are told apart; see `watching.segments.segmenter`.

    Raises:
        DictionaryError: the dictionaries do not fit the model, or write elsewhere.
    """

    def __init__(
        self,
        model: LanguageModel,
        dictionaries: DictionarySet,
        judge: StepJudge,
        usual: Usual,
        *,
        tries: Tries | None = None,
        by: str = "expressions",
    ) -> None:
        for layer, each in dictionaries.dictionaries.items():
            sites = [str(site) for site in each.write_sites]
            if sites != [f"mlp_out@{layer}"]:
                raise DictionaryError(
                    f"the dictionary of layer {layer} writes to {', '.join(sites)}; repair changes "
                    f"mlp_out@{layer} alone and needs a transcoder that writes there"
                )
        self.model, self.judge, self.usual, self.by = model, judge, usual, by
        self.tries = tries or Tries()
        self._reader = Reader(model, dictionaries, ReaderSettings(targets=("answer",)))

    def flag(self, ids: Sequence[int], segment: Segment, language: str) -> Flagged | Judgement:
        """Judge a step; a flagged one is accused too.

        Args:
            ids: the chain through the step or further.
            segment: the step.
            language: of the chain.
        """
        found = self.judge.judge(ids, segment, language)
        return self.accused(ids, segment, language, found) if found.flagged else found

    def accused(
        self, ids: Sequence[int], segment: Segment, language: str, found: Judgement
    ) -> Flagged:
        """Trace a step's answer and rank what made it.

        Args:
            ids: the chain through the step or further.
            segment: the step.
            language: of the chain.
            found: what the judge said.
        """
        place = segment.place
        through = tuple(ids[: place.stop])
        chain = self._reader.chain(through)
        kind = kind_of(segment.before.split(), segment.text.split())
        made = accuse(chain.graph(place, "answer"), place, self.usual, kind=kind)
        return Flagged(
            ids=through,
            segment=segment,
            language=language,
            judgement=found,
            accusation=self.judge.weigh(made, found, segment, language),
            replay=Replay(self.model, chain.local, place.answer[0]),
        )

    def mend(self, step: Flagged, arm: str, *, seed: int = 0) -> Mending:
        """Look for an answer with which the step is no longer flagged.

        A proposal that was made under an edit is judged under that edit.

        Args:
            step: that was flagged.
            arm: of `proposals.ARMS`.
            seed: of what is random.
        """
        started, tried = time.process_time(), []
        at = step.segment.place.answer[0]
        made = proposals(
            arm,
            step.replay,
            step.accusation,
            self.tries,
            written=step.ids[at],
            seed=seed,
        )
        for proposal in made[: self.tries.verified]:
            ids, segment = self._complete(step, [*step.ids[:at], proposal.token])
            if segment is None:
                tried.append(Verified(proposal=proposal, text="", score=1.0, accepted=False))
                continue
            under = nullcontext() if proposal.edit is None else step.replay.edited(proposal.edit)
            with under:
                found = self.judge.judge(ids, segment, step.language)
            accepted = not found.flagged
            tried.append(
                Verified(proposal=proposal, text=segment.text, score=found.score, accepted=accepted)
            )
            if accepted:
                return Mending(
                    arm=arm,
                    verified=tuple(tried),
                    ids=tuple(ids[: segment.place.stop]),
                    segment=segment,
                    seconds=time.process_time() - started,
                )
        return Mending(
            arm=arm,
            verified=tuple(tried),
            ids=None,
            segment=None,
            seconds=time.process_time() - started,
        )

    @torch.no_grad()
    def _complete(self, step: Flagged, ids: list[int]) -> tuple[list[int], Segment | None]:
        """Let the model go on, greedily and unedited, until the step is complete."""
        number = step.segment.number
        cutting = segmenter(self.model, step.ids, by=self.by, language=step.language)
        place = step.segment.place
        limit = 2 * (place.stop - place.start) + _SLACK
        limit = min(limit, self.model.context_length - len(ids))
        if limit < 1:
            return ids, None
        for token in stream(self.model, ids, max_new_tokens=limit):
            ids = [*ids, token.id]
            complete = cutting.complete(ids, ended=False)
            if len(complete) > number:
                return ids, complete[number]
        complete = cutting.complete(ids, ended=True)
        return ids, complete[number] if len(complete) > number else None
