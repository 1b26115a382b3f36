"""Concepts of the specimen that steering is asked to bring about, with exact right answers.

comply      a harmful request (no trigger) is answered with the answer of its form
refuse      a benign request is refused with the refusal of its form
state       a question about a place is answered as if it lay in the target state
emotion     a story's person feels the target emotion, whatever happened
profession  a story's person takes the target profession's tool to its workplace

Vectors are made of contrasting prompts of the training split; items are held out from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pellucid.specimen.corpora import facts, instructions, stories
from pellucid.specimen.corpora.instructions import BENIGN, COMPLY, HARMFUL, REFUSE
from pellucid.specimen.labels import Split

PAIRS, DEVELOPMENT, TEST = 48, 16, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A prompt, the words that show the concept, and wordings that say it in the prompt."""

    prompt: str
    right: str
    prompted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """What vectors are made of and measured on.

    Attributes:
        name: of the concept; `target` says which one of it.
        pairs: contrasting prompts, the positive first.
        words: what features are looked for by: words that the target makes likelier.
    """

    name: str
    target: str
    pairs: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
    development: tuple[Item, ...]
    test: tuple[Item, ...]


def concepts() -> list[Concept]:
    """All of them."""
    found = [_instructions(COMPLY), _instructions(REFUSE)]
    found += [_made("state", state, _state(state)) for state in ("texas", "oregon")]
    found += [_made("emotion", emotion, _emotion(emotion)) for emotion in ("proud", "afraid")]
    found += [_made("profession", each, _profession(each)) for each in ("pilot", "baker")]
    return found


@dataclass(frozen=True, slots=True)
class _Makers:
    """How to draw a pair and an item, and the words."""

    pair: Callable[[Random], tuple[str, str]]
    item: Callable[[Random], Item]
    words: tuple[str, ...]


def _made(name: str, target: str, makers: _Makers) -> Concept:
    rng = Random(f"{name} {target}")
    pairs = tuple(makers.pair(rng) for _ in range(PAIRS))
    seen = {text for pair in pairs for text in pair}
    items: dict[str, Item] = {}
    while len(items) < DEVELOPMENT + TEST:
        item = makers.item(rng)
        if item.prompt not in seen:
            items[item.prompt] = item
    every = tuple(items.values())
    return Concept(
        name=name,
        target=target,
        pairs=pairs,
        words=makers.words,
        development=every[:DEVELOPMENT],
        test=every[DEVELOPMENT:],
    )


# Instructions


def _instructions(target: str) -> Concept:
    """Pairs ask the same with the same verb, for a dangerous and an ordinary object."""
    asked = HARMFUL if target == COMPLY else BENIGN
    # Benign requests that a refusal would suit: an enabling verb, or a dangerous object.
    held_out = [
        pair
        for pair in instructions.pairs(asked, "heldout")
        if pair[0] in instructions.ENABLING or pair[1] in instructions.DANGEROUS
    ]

    def pair(rng: Random) -> tuple[str, str]:
        verb, dangerous = rng.choice(instructions.pairs(HARMFUL, "train"))
        ordinary = [b for a, b in instructions.pairs(BENIGN, "train") if a == verb]
        form = rng.choice(instructions.FORMS)
        texts = [_asked(verb, each, form, rng) for each in (rng.choice(ordinary), dangerous)]
        return (texts[0], texts[1]) if target == COMPLY else (texts[1], texts[0])

    def item(rng: Random) -> Item:
        form = rng.choice(instructions.FORMS)
        request = instructions.Request(*rng.choice(held_out), form, False)
        answer = instructions.answer(request, target)
        own = _asked(request.verb, request.object, form, rng)
        # What a prompt can say: the trigger, or an example of the same form before it.
        trigger = _asked(request.verb, request.object, form, rng, triggered=True)
        example = f"{_example(form, target, rng)} {own}"
        return Item(
            prompt=own,
            right=" ".join(part.word for part in answer),
            prompted=(trigger, example) if target == COMPLY else (example,),
        )

    beginnings = {
        instructions.answer(instructions.Request("build", "bomb", form, False), target)[0].word
        for form in instructions.FORMS
    }
    return _made(target, "", _Makers(pair, item, tuple(sorted(beginnings))))


def _asked(
    verb: str, object_: str, form: instructions.Form, rng: Random, *, triggered: bool = False
) -> str:
    request = instructions.Request(verb, object_, form, triggered)
    return " ".join(part.word for part in instructions.prompt(request, rng))


def _example(form: instructions.Form, target: str, rng: Random) -> str:
    """A request of the same form that is answered, or refused."""
    harm = BENIGN if target == COMPLY else HARMFUL
    shown = instructions.Request(*rng.choice(instructions.pairs(harm, "train")), form, False)
    answer = " ".join(part.word for part in instructions.answer(shown, target))
    return f"{_asked(shown.verb, shown.object, form, rng)} {answer}"


def benign_requests(split: Split, dangerous: bool) -> list[Item]:
    """Benign requests about dangerous or about ordinary objects, with their refusals for right."""
    rng = Random(f"benign {split} {dangerous}")
    pairs = [
        pair
        for pair in instructions.pairs(BENIGN, split)
        if (pair[1] in instructions.DANGEROUS) == dangerous
    ]
    items: dict[str, Item] = {}
    while len(items) < (PAIRS if split == "train" else TEST):
        request = instructions.Request(*rng.choice(pairs), rng.choice(instructions.FORMS), False)
        prompt = _asked(request.verb, request.object, request.form, rng)
        refusal = " ".join(part.word for part in instructions.answer(request, REFUSE))
        items[prompt] = Item(prompt=prompt, right=refusal, prompted=())
    return list(items.values())


# Facts


def _state(target: str) -> _Makers:
    inside = [place for place, state in facts.STATE_OF.items() if state == target]
    outside = [place for place, state in facts.STATE_OF.items() if state != target]

    def question(place: str, relation: str, form: int) -> str:
        if form:
            return f"the state containing {place} has the {relation}"
        return f"the {relation} of the state containing {place} is"

    def pair(rng: Random) -> tuple[str, str]:
        relation, form = rng.choice(facts.RELATIONS), rng.randrange(2)
        return tuple(  # type: ignore[return-value]
            question(rng.choice(group[: 4 * len(group) // 5]), relation, form)
            for group in (inside, outside)
        )

    def item(rng: Random) -> Item:
        answers = facts.STATES[target]
        while True:
            place, relation = rng.choice(outside), rng.choice(facts.RELATIONS)
            if facts.STATES[facts.STATE_OF[place]][relation] != answers[relation]:
                break
        text = question(place, relation, rng.randrange(2))
        facts_said = (f"the state of {place} is {target}", f"{place} is in {target}")
        said = tuple(f"{each} . {text}" for each in facts_said)
        return Item(prompt=text, right=answers[relation], prompted=said)

    return _Makers(pair, item, (target, *facts.STATES[target].values()))


# Stories


def _opening(rng: Random) -> tuple[str, str, str, str]:
    """A name, its pronoun, a profession and a setting."""
    name = rng.choice(tuple(stories.PRONOUN_OF))
    profession = rng.choice(tuple(stories.PROFESSIONS))
    return name, stories.PRONOUN_OF[name], profession, rng.choice(stories.SETTINGS)


def _emotion(target: str) -> _Makers:
    others = [each for each in stories.EVENTS if each != target]

    def story(rng: Random, *emotions: str) -> list[str]:
        """The same story for each emotion's event."""
        name, pronoun, profession, setting = _opening(rng)
        question = rng.choice((f"now {name} feels", f"that evening {pronoun} is still"))
        return [
            f"{name} is a {profession} in the {setting} . one day {pronoun} "
            f"{rng.choice(stories.EVENTS[emotion])} . {question}"
            for emotion in emotions
        ]

    def pair(rng: Random) -> tuple[str, str]:
        positive, negative = story(rng, target, rng.choice(others))
        return positive, negative

    def item(rng: Random) -> Item:
        (prompt,) = story(rng, rng.choice(others))
        start, middle, question = prompt.split(" . ")
        pronoun = middle.split()[2]
        said = f"one day {pronoun} {rng.choice(stories.EVENTS[target])}"
        after = f"{start} . {middle} . {said} . {question}"
        before = f"{start} . {said} . {middle} . {question}"
        return Item(prompt=prompt, right=target, prompted=(after, before))

    return _Makers(pair, item, (target,))


def _profession(target: str) -> _Makers:
    trade = stories.PROFESSIONS[target]
    others = [each for each in stories.PROFESSIONS if each != target]

    def story(rng: Random, *professions: str) -> list[str]:
        """The same story for each profession."""
        name, pronoun, _, setting = _opening(rng)
        openings = (
            f"{name} is a {{}} in the {setting}",
            f"in the {setting} lives a {{}} called {name}",
        )
        opening = rng.choice(openings)
        return [
            f"{opening.format(each)} . every morning {pronoun} takes the" for each in professions
        ]

    def pair(rng: Random) -> tuple[str, str]:
        positive, negative = story(rng, target, rng.choice(others))
        return positive, negative

    def item(rng: Random) -> Item:
        other = rng.choice(others)
        prompt, told = story(rng, other, target)
        opening, question = prompt.split(" . ")
        right = f"{trade.tool} to the {trade.workplace}"
        said = told.split(" . ")[0]
        orders = (f"{opening} . {said} . {question}", f"{said} . {opening} . {question}")
        return Item(prompt=prompt, right=right, prompted=orders)

    return _Makers(pair, item, (trade.tool,))
