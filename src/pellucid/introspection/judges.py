"""Judges: what an answer says. The exact one reads words, offline."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from pellucid.introspection.wording import Wording

Answered = Literal["yes", "no", "refused", "unclear"]
_WORDS = re.compile(r"[\w'-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What one answer says.

    Attributes:
        answered: whether it affirms, denies, refuses, or none of these.
        named: the concept that an affirmative answer names; None without one, or when a concept
            was named before the affirmation.
    """

    answered: Answered
    named: str | None = None


class Judge(ABC):
    """Reads answers."""

    name: str

    @abstractmethod
    def read(self, question: str, answers: Sequence[str]) -> list[Judgement]:
        """What each answer to a question says.

        Args:
            question: as it was put.
            answers: as the model gave them.
        """

    def to_json(self) -> dict[str, Any]:
        """What a report says of this judge."""
        return {"name": self.name}


@final
class ExactJudge(Judge):
    """Finds the wording's own phrases; needs no other model.

    The first phrase that occurs decides between yes, no and refusal. The name is the first concept
    after a yes; an answer that names one before it claims anything may be steered speech, and
    counts as naming nothing (Lindsey 2025).

    Args:
        wording: its phrases and concepts.
    """

    name = "exact"

    def __init__(self, wording: Wording) -> None:
        self._phrases: list[tuple[Answered, list[str]]] = [
            *(("refused", words_of(phrase)) for phrase in wording.refusals),
            *(("yes", words_of(phrase)) for phrase in wording.yes),
            *(("no", words_of(phrase)) for phrase in wording.no),
        ]
        self._concepts = {form: word for word in wording.concepts for form in _forms(word)}

    def read(self, question: str, answers: Sequence[str]) -> list[Judgement]:
        """What each answer says; the question does not matter."""
        return [self._one(answer) for answer in answers]

    def first_named(self, answer: str) -> str | None:
        """The first concept that an answer names, whatever it claims.

        Args:
            answer: as the model gave it.
        """
        return self._first(words_of(answer))

    def _first(self, words: Sequence[str]) -> str | None:
        return next((self._concepts[word] for word in words if word in self._concepts), None)

    def _one(self, answer: str) -> Judgement:
        words = words_of(answer)
        places = [
            (_place(phrase, words), -len(phrase), answered) for answered, phrase in self._phrases
        ]
        begin, length, answered = min(places, key=lambda place: place[:2])
        if begin == len(words):
            return Judgement(answered="unclear")
        if answered != "yes":
            return Judgement(answered=answered)
        if self._first(words[:begin]) is not None:
            return Judgement(answered="yes")
        return Judgement(answered="yes", named=self._first(words[begin - length :]))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORDS.findall(text.lower())


def _forms(word: str) -> list[str]:
    """A concept in the singular and plural, as it would be spelled by rule."""
    plain = word.lower()
    if plain.endswith("s"):
        return [plain, plain[:-1]]
    return [plain, f"{plain}s", f"{plain}es"]


def _place(phrase: list[str], words: list[str]) -> int:
    """Where a phrase begins; after the last word if nowhere."""
    size = len(phrase)
    places = (i for i in range(len(words) - size + 1) if words[i : i + size] == phrase)
    return next(places, len(words))
