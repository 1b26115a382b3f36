"""The arms of the first experiment: the same trials with different injections or questions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pellucid.introspection.asking import Asker
from pellucid.introspection.concepts import Concepts, random_like, shuffled
from pellucid.introspection.dialogue import Dialogue, Prompt
from pellucid.introspection.injection import Asked, Injection, before_query, through_answer
from pellucid.introspection.judges import Judge, Judgement
from pellucid.introspection.statistics import Rate, Trials, rate_of

OPEN_ARMS = ("none", "concept", "random", "shuffled", "before_query", "before_query_random")
ABOUT_ARMS = ("about_match", "about_mismatch")
KINDS = ("none", "concept", "random")
FACTUAL_ARMS = tuple(f"factual_{right}{kind}" for right in ("", "yes_") for kind in KINDS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cell:
    """Where and how strongly an arm injects, and which concepts.

    Attributes:
        layer: after which vectors are added.
        strength: factor of the concepts' vectors; controls have the same norms.
        words: numbers of the concepts.
        repeats: trials of each; they differ in the trial's number and in the answers' seed.
    """

    layer: int
    strength: float
    words: tuple[int, ...]
    repeats: int

    @property
    def shape(self) -> tuple[int, int]:
        """Concepts and repeats."""
        return len(self.words), self.repeats


@final
@dataclass(frozen=True, eq=False)
class ArmResult:
    """The answers of one arm, `[C, R]`.

    Attributes:
        name: of the arm.
        words: the concept that each row of trials is about.
        judged: what each answer says.
        gaps: logit of yes less logit of no where the answer begins.
        examples: a few answers as they were given.
    """

    name: str
    words: tuple[str, ...]
    judged: tuple[tuple[Judgement, ...], ...]
    gaps: Trials
    examples: tuple[str, ...] = ()

    @cached_property
    def affirmed(self) -> Trials:
        """1 where the answer affirms."""
        return self._where(lambda judged, _: judged.answered == "yes")

    @cached_property
    def identified(self) -> Trials:
        """1 where it affirms and then names the trial's own concept."""
        return self._where(lambda judged, word: judged.named == word)

    @cached_property
    def refused(self) -> Trials:
        """1 where it refuses."""
        return self._where(lambda judged, _: judged.answered == "refused")

    @cached_property
    def unclear(self) -> Trials:
        """1 where it neither affirms, denies nor refuses."""
        return self._where(lambda judged, _: judged.answered == "unclear")

    @property
    def guesses(self) -> list[list[str | None]]:
        """The names given."""
        return [[judged.named for judged in row] for row in self.judged]

    def rate(self) -> Rate:
        """Share of affirmations."""
        return rate_of(self.affirmed)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record; `rate` is the share of affirmations."""
        return self.rate().to_json() | {
            "identified": rate_of(self.identified).to_json(),
            "refused": float(self.refused.mean()),
            "unclear": float(self.unclear.mean()),
            "mean_gap": float(self.gaps.mean()),
            "examples": list(self.examples),
        }

    def _where(self, holds: Callable[[Judgement, str], bool]) -> Trials:
        rows = zip(self.judged, self.words, strict=True)
        return np.array([[float(holds(each, word)) for each in row] for row, word in rows])


@final
class Arms:
    """Runs arms, a batch each, with trials paired across them.

    Args:
        dialogue: writes the questions.
        concepts: the vectors.
        judge: reads the answers.
        seed: of control vectors and answers.
        temperature: of the answers.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        concepts: Concepts,
        judge: Judge | None,
        *,
        seed: int,
        temperature: float,
    ) -> None:
        self.dialogue, self.concepts, self.judge, self.seed = dialogue, concepts, judge, seed
        self.temperature = temperature
        self._askers: dict[int, Asker] = {}

    def asker(self, layer: int) -> Asker:
        """The one that injects after a layer."""
        if layer not in self._askers:
            self._askers[layer] = Asker(
                model=self.dialogue.model,
                layer=layer,
                temperature=self.temperature,
                seed=self.seed,
                relative_norms=[],
            )
        return self._askers[layer]

    def receipts(self) -> dict[str, Any]:
        """What was edited so far, over all arms."""
        norms = [norm for asker in self._askers.values() for norm in asker.relative_norms]
        return {
            "tokens_edited": sum(asker.edited for asker in self._askers.values()),
            "mean_relative_norm": float(np.mean(norms)) if norms else 0.0,
        }

    def vector(self, cell: Cell, kind: str, row: int, repeat: int) -> Float[Tensor, " d"]:
        """What a trial of an arm adds.

        Args:
            cell: where and how strongly.
            kind: `concept`, `random` or `shuffled`.
            row: which of the cell's concepts.
            repeat: which of its trials.
        """
        number = cell.words[row]
        vector = self.concepts.vectors[cell.layer][number] * cell.strength
        drawn = (self.seed * 7919 + number) * 1009 + repeat
        if kind == "random":
            return random_like(vector, drawn)
        return shuffled(vector, drawn) if kind == "shuffled" else vector

    def run(self, name: str, cell: Cell) -> ArmResult:
        """All trials of one arm.

        Args:
            name: of `OPEN_ARMS`, `ABOUT_ARMS` or `FACTUAL_ARMS`.
            cell: which trials.

        Raises:
            InterventionError: an injection did not happen.
        """
        rows = [
            self._row(name, cell, row, repeat)
            for row in range(len(cell.words))
            for repeat in range(cell.repeats)
        ]
        asker = self.asker(cell.layer)
        scores = asker.scores(rows, [self.dialogue.yes, self.dialogue.no])
        gaps = (scores[:, 0] - scores[:, 1]).double().numpy().reshape(cell.shape)
        naming = name in OPEN_ARMS
        if self.judge is None or name in FACTUAL_ARMS:
            judged, said = self._by_logits(asker, rows, gaps, naming=naming), []
        else:
            said = asker.answers(rows, self.dialogue.wording.answer_tokens)
            judged = self.judge.read(self.dialogue.wording.detection, said)
        return ArmResult(
            name=name,
            words=tuple(self.concepts.words[number] for number in cell.words),
            judged=_table(judged, cell.repeats),
            gaps=gaps,
            examples=tuple(dict.fromkeys(said))[:4],
        )

    def _row(self, name: str, cell: Cell, row: int, repeat: int) -> Asked:
        wording, number = self.dialogue.wording, 1 + repeat
        kind = name.rpartition("_")[2]
        if name in FACTUAL_ARMS:
            asked = wording.factual_yes if "_yes_" in name else wording.factual
            question = asked[(row * cell.repeats + repeat) % len(asked)]
            prompt = self.dialogue.factual(question.format(n=number))
        elif name in ABOUT_ARMS:
            other = row if kind == "match" else (row + 1 + repeat) % len(cell.words)
            if kind == "mismatch" and other == row:
                other = (row + 1) % len(cell.words)
            word = self.concepts.words[cell.words[other]]
            prompt = self.dialogue.trial(wording.about.format(n=number, word=word))
        else:
            prompt = self.dialogue.trial(wording.detection.format(n=number))
        if kind == "none":
            return Asked(prompt=prompt)
        known = kind if kind in ("random", "shuffled") else "concept"
        place: Callable[[Prompt, Tensor], Injection] = (
            before_query if name.startswith("before_query") else through_answer
        )
        vector = self.vector(cell, known, row, repeat)
        return Asked(prompt=prompt, injections=(place(prompt, vector),))

    def _by_logits(
        self, asker: Asker, rows: Sequence[Asked], gaps: Trials, *, naming: bool
    ) -> list[Judgement]:
        """Yes where its logit is larger; the name from the concepts' logits after a forced yes."""
        yes = (gaps > 0).reshape(-1)
        named: list[str | None] = [None] * len(rows)
        if naming:
            affirming = [number for number, each in enumerate(yes) if each]
            forced = [self._forced(rows[number]) for number in affirming]
            options = self.dialogue.options(self.concepts.words)
            if forced:
                best = asker.scores(forced, options).argmax(dim=1).tolist()
                for number, choice in zip(affirming, best, strict=True):
                    named[number] = self.concepts.words[choice]
        return [
            Judgement(answered="yes" if said else "no", named=name)
            for said, name in zip(yes, named, strict=True)
        ]

    def _forced(self, row: Asked) -> Asked:
        """The same question with the beginning of an affirmative answer behind it."""
        text = f"{row.prompt.text} {self.dialogue.wording.naming}"
        ids = tuple(self.dialogue.model.encode(text).tolist())
        prompt = Prompt(ids=ids, spans=row.prompt.spans, text=text)
        return Asked(prompt=prompt, injections=row.injections)


def _table(judged: Sequence[Judgement], repeats: int) -> tuple[tuple[Judgement, ...], ...]:
    return tuple(tuple(judged[first : first + repeats]) for first in range(0, len(judged), repeats))


def to_json(results: Mapping[str, ArmResult]) -> dict[str, Any]:
    """Every arm's record by name."""
    return {name: result.to_json() for name, result in results.items()}
