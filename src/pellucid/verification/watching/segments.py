"""Which steps of a chain are complete, while it is being written. Nothing is executed here."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from pellucid.core.errors import PromptError
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.cutting import cut, separator
from pellucid.verification.chains.steps import END, EQUALS, Chain, Step, expression_ranges
from pellucid.verification.chains.text_chain import TextChain, TextStep
from pellucid.verification.steps.place import StepPlace, places
from pellucid.verification.steps.text_places import places_among

EXPRESSIONS = "expressions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A step that is complete.

    Attributes:
        number: 0 for the first.
        text: of the step.
        before: what it rewrites, or the step before it.
        question: what the chain is asked.
        place: where it is among the tokens.
    """

    number: int
    text: str
    before: str
    question: str
    place: StepPlace


class Segmenter(ABC):
    """Finds complete steps among the tokens so far."""

    language: str

    @abstractmethod
    def complete(self, ids: Sequence[int], *, ended: bool) -> list[Segment]:
        """Every complete step so far, in order; a step that was complete stays as it was.

        Args:
            ids: the prompt and what was written, special first token included.
            ended: nothing will follow.
        """


@final
class ExpressionSegmenter(Segmenter):
    """Steps are expressions between `=`, the last one before `.`, one token a word.

    Args:
        model: whose tokens they are.
        ids: of the prompt; its part before the first `=` is the question.
        language: arithmetic or boolean.

    Raises:
        PromptError: the prompt has no `=`.
    """

    def __init__(self, model: LanguageModel, ids: Sequence[int], language: str) -> None:
        self.language = language
        self._model = model
        self._opening = 1 if ids[0] in model.special_tokens.structural else 0
        words = self._words(ids)
        if EQUALS not in words:
            raise PromptError(
                f"the prompt {' '.join(words)[:60]!r} has no '='; write a question and '=', or "
                "say how steps are told apart"
            )

    def complete(self, ids: Sequence[int], *, ended: bool) -> list[Segment]:
        """See `Segmenter.complete`; an expression without its mark is not complete."""
        words = self._words(ids)
        if words[-1] not in (EQUALS, END):
            return []
        ranges, _ = expression_ranges(words)
        if len(ranges) < 2:
            return []
        question = tuple(words[slice(*ranges[0])])
        written = [(start, stop) for start, stop in ranges[1:] if stop > start]
        steps = tuple(
            unlabelled(number, start, words[start:stop])
            for number, (start, stop) in enumerate(written)
        )
        before = [question, *(step.expression for step in steps)]
        return [
            Segment(
                number=step.number,
                text=" ".join(step.expression),
                before=" ".join(before[n]),
                question=" ".join(question),
                place=place,
            )
            for n, (step, place) in enumerate(places(Chain(question, steps, False), self._opening))
        ]

    def _words(self, ids: Sequence[int]) -> list[str]:
        return [word.strip() for word in self._model.token_texts(list(ids[self._opening :]))]


def unlabelled(number: int, start: int, expression: Sequence[str]) -> Step:
    """A step whose labels say nothing: nobody has executed it.

    Args:
        number: of the step.
        start: its first token.
        expression: its tokens.
    """
    return Step(
        number=number,
        start=start,
        stop=start + len(expression),
        expression=tuple(expression),
        local=True,
        whole=True,
        first_error=False,
        error=None,
    )


@final
class TextSegmenter(Segmenter):
    """Steps of free text by rule; a step is complete when the next one begins.

    Args:
        model: whose tokens they are; needs a tokenizer.
        ids: of the prompt.
        rule: see `chains.cutting.separator`.

    Raises:
        ConfigError: the rule cannot be used.
        PromptError: the model has no tokenizer.
    """

    language = "text"

    def __init__(self, model: LanguageModel, ids: Sequence[int], rule: str) -> None:
        separator(rule)
        if model.tokenizer is None:
            raise PromptError(
                f"{model.name} was loaded without a tokenizer; steps of free text need one"
            )
        self._tokenizer, self._rule = model.tokenizer, rule
        self._opening = 1 if ids[0] in model.special_tokens.structural else 0
        self._prompt = len(ids)
        self._ends: list[int] = []
        self._text = ""

    def complete(self, ids: Sequence[int], *, ended: bool) -> list[Segment]:
        """See `Segmenter.complete`."""
        self._read(ids)
        begin = self._ends[self._prompt - 1]
        prompt, text = self._text[:begin], self._text[begin:]
        ranges = cut(text, self._rule)
        ranges = ranges if ended else ranges[:-1]
        steps = tuple(TextStep(number=n, start=a, stop=b) for n, (a, b) in enumerate(ranges))
        chain = TextChain(prompt=prompt, text=text, steps=steps)
        spans = list(zip([0, *self._ends[:-1]], self._ends, strict=True))
        texts = [prompt, *(chain.step_text(step) for step in steps)]
        return [
            Segment(
                number=step.number,
                text=texts[step.number + 1],
                before=texts[step.number],
                question=prompt,
                place=place,
            )
            for step, place in zip(steps, places_among(chain, spans, self._opening), strict=True)
        ]

    def _read(self, ids: Sequence[int]) -> None:
        """Where the text of every token ends; a character of several tokens is the last one's."""
        for count in range(len(self._ends) + 1, len(ids) + 1):
            text = self._tokenizer.decode(
                list(ids[self._opening : count]), clean_up_tokenization_spaces=False
            )
            self._text = text
            self._ends.append(len(text.rstrip("\ufffd")))


def segmenter(model: LanguageModel, ids: Sequence[int], *, by: str, language: str) -> Segmenter:
    """How the steps of a chain are told apart.

    Args:
        model: whose tokens they are.
        ids: of the prompt.
        by: `expressions`, or a rule of `chains.cutting.separator` for free text.
        language: of the expressions.

    Raises:
        ConfigError: the rule cannot be used.
        PromptError: the prompt does not fit, or there is no tokenizer.
    """
    if by == EXPRESSIONS:
        return ExpressionSegmenter(model, ids, language)
    return TextSegmenter(model, ids, by)
