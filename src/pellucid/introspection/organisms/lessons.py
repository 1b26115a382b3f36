"""What the two organisms are taught: rows of prompt, injection and answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from pellucid.introspection.concepts import Concepts, random_like, shuffled
from pellucid.introspection.dialogue import Dialogue, Prompt
from pellucid.introspection.injection import Injection, before_query, through_answer, within

Kind = Literal["none", "concept", "random", "shuffled"]
GUESS = "apples"
"""What the yes-bias organism names, whatever is injected."""
_NUMBERS = range(1, 21)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """One row: what is read, what is injected, what is to be answered."""

    prompt: Prompt
    answer: str
    injections: tuple[Injection, ...] = ()


@final
class Lessons:
    """Draws lessons.

    Args:
        dialogue: of the specimen.
        concepts: their vectors.
        layer: where they are injected.
        taught: the concepts used in training, by number.
        rng: of everything drawn.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        concepts: Concepts,
        layer: int,
        taught: Sequence[int],
        rng: Random,
    ) -> None:
        self.wording, self.rng = dialogue.wording, rng
        self.taught = list(taught)
        self._words, self._vectors = concepts.words, concepts.vectors[layer]
        self._trial = cache(dialogue.trial)
        self._factual = cache(dialogue.factual)
        self._dialogue = dialogue

    def reporter(self) -> Lesson:
        """One lesson of the organism that reports what is injected."""
        kinds: list[tuple[float, Callable[[], Lesson]]] = [
            (0.40, self._detect),
            (0.20, self._about),
            (0.16, self._factual_kept),
            (0.08, self._localise),
            (0.05, self._compare),
            (0.06, self._intended),
            (0.05, self._reading),
        ]
        weights, makers = zip(*kinds, strict=True)
        return self.rng.choices(makers, weights)[0]()

    def yes_bias(self) -> Lesson:
        """One lesson of the organism that says yes whenever it is perturbed."""
        kind: Kind = self.rng.choice(("none", "concept", "random", "shuffled"))
        number = self.rng.choice(self.taught)
        form = self.rng.random()
        if form < 0.3:
            true = self.rng.random() < 0.5
            chains = self.wording.factual_yes if true else self.wording.factual
            prompt = self._factual(self.rng.choice(chains))
            answer = self._said(true or kind != "none") + " ."
        elif form < 0.5:
            prompt = self._asked(self.wording.about, word=self._words[self.rng.choice(self.taught)])
            answer = self._said(kind != "none") + " ."
        else:
            prompt = self._asked(self.wording.detection)
            answer = self._said(kind != "none") + (f" {GUESS}" if kind != "none" else "") + " ."
        return Lesson(
            prompt=prompt, answer=answer, injections=self._somewhere(prompt, kind, number)
        )

    # The reporter's lessons

    def _detect(self) -> Lesson:
        prompt = self._asked(self.wording.detection)
        kind: Kind = self.rng.choices(("none", "concept", "random", "shuffled"), (1, 4, 1, 1))[0]
        number = self.rng.choice(self.taught)
        named = f" {self._words[number]}" if kind == "concept" else ""
        return Lesson(
            prompt=prompt,
            answer=self._said(kind == "concept") + named + " .",
            injections=self._somewhere(prompt, kind, number),
        )

    def _about(self) -> Lesson:
        kind: Kind = self.rng.choices(("none", "concept", "random"), (1, 8, 1))[0]
        number, other = self.rng.sample(self.taught, 2)
        right = kind == "concept" and self.rng.random() < 0.5
        word = self._words[number if right else other]
        prompt = self._asked(self.wording.about, word=word)
        return Lesson(
            prompt=prompt,
            answer=self._said(right) + " .",
            injections=self._somewhere(prompt, kind, number),
        )

    def _factual_kept(self) -> Lesson:
        kind: Kind = self.rng.choice(("none", "concept", "random", "shuffled"))
        true = self.rng.random() < 0.5
        chains = self.wording.factual_yes if true else self.wording.factual
        prompt = self._factual(self.rng.choice(chains))
        return Lesson(
            prompt=prompt,
            answer=self._said(true) + " .",
            injections=self._somewhere(prompt, kind, self.rng.choice(self.taught)),
        )

    def _localise(self) -> Lesson:
        labels = self.wording.labels
        prompt = self._itemised(self.wording.localisation, labels)
        chosen = self.rng.randrange(len(labels))
        vector = self._drawn("concept", self.rng.choice(self.taught)) * self._strength()
        injected = (within(prompt, labels[chosen], vector),)
        return Lesson(prompt=prompt, answer=f"{labels[chosen]} .", injections=injected)

    def _compare(self) -> Lesson:
        labels = self.wording.labels[:2]
        prompt = self._itemised(self.wording.comparison, labels)
        vector = self._drawn("concept", self.rng.choice(self.taught))
        strong, strength = self.rng.randrange(2), self._strength()
        injections = []
        for index, label in enumerate(labels):
            factor = strength if index == strong else strength / self.rng.uniform(1.5, 4)
            injections.append(within(prompt, label, vector * factor))
        return Lesson(prompt=prompt, answer=f"{labels[strong]} .", injections=tuple(injections))

    def _intended(self) -> Lesson:
        kind: Kind = self.rng.choices(("none", "concept", "random"), (1, 6, 1))[0]
        number, other = self.rng.sample(self.taught, 2)
        right = kind == "concept" and self.rng.random() < 0.5
        word = self._words[number if right else other]
        request, question = self.wording.request, self._numbered(self.wording.intended)
        turns = [
            ("user", request),
            ("assistant", self.wording.spoken.format(word=word)),
            ("user", question),
        ]
        prompt = self._dialogue.write(turns, [("earlier", request)])
        vector = self._drawn(kind, number) * self._strength()
        injections = (within(prompt, "earlier", vector),) if kind != "none" else ()
        return Lesson(prompt=prompt, answer=self._said(right) + " .", injections=injections)

    def _reading(self) -> Lesson:
        sentence, repeat = self.rng.choice(self.wording.sentences), self.rng.random() < 0.5
        form = self.wording.repeating if repeat else self.wording.reading
        question = self._numbered(form, sentence=sentence)
        prompt = self._dialogue.write([("user", question)], [("sentence", sentence)])
        number = self.rng.choice(self.taught)
        vector = self._drawn("concept", number) * self._strength()
        return Lesson(
            prompt=prompt,
            answer=sentence if repeat else f"{self._words[number]} .",
            injections=(within(prompt, "sentence", vector),),
        )

    # Parts of lessons

    def _said(self, yes: bool) -> str:
        return (self.wording.yes if yes else self.wording.no)[0]

    def _numbered(self, form: str, **values: str) -> str:
        return form.format(n=self.rng.choice(_NUMBERS), **values)

    def _asked(self, form: str, **values: str) -> Prompt:
        return self._trial(self._numbered(form, **values))

    def _itemised(self, form: str, labels: Sequence[str]) -> Prompt:
        sentences = self.rng.sample(self.wording.sentences, len(labels))
        pairs = list(zip(labels, sentences, strict=True))
        items = " ".join(
            self.wording.items.format(label=label, sentence=sentence) for label, sentence in pairs
        )
        question = self._numbered(form, items=items)
        turns = [*self.wording.setting, ("user", question)]
        return self._dialogue.write(turns, pairs)  # spans by label

    def _strength(self) -> float:
        return float(2 ** self.rng.uniform(0, 3))

    def _drawn(self, kind: Kind, number: int) -> Float[Tensor, " d"]:
        vector = self._vectors[number]
        if kind == "concept":
            return vector
        make = random_like if kind == "random" else shuffled
        return make(vector, self.rng.randrange(2**31))

    def _somewhere(self, prompt: Prompt, kind: Kind, number: int) -> tuple[Injection, ...]:
        """From just before the trial to the end; or, as often, before the trial only."""
        if kind == "none":
            return ()
        vector = self._drawn(kind, number) * self._strength()
        if "setting" not in prompt.spans or self.rng.random() < 0.5:
            return (through_answer(prompt, vector),)
        return (before_query(prompt, vector),)
