"""What the suite says to a model, as data: one JSON file holds every prompt, word and phrase.

Braces mark what is filled in: `{n}` the trial's number, `{word}` a concept, `{sentence}` and
`{items}` sentences, `{label}` an item's label.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, final

from pellucid.core.errors import ConfigError

_FOLDER = Path(__file__).parent / "wordings"
BUILT_IN = ("english", "specimen")
Turn = tuple[str, str]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """All prompts of the suite for one kind of model.

    Attributes:
        name: of the wording, for reports.
        chat: how a turn of `user` and of `assistant` is written around its `{text}`, and what
            joins turns (`joint`), for a tokenizer without a chat template.
        chat_template: use the tokenizer's chat template where it has one.
        concept_prompt: a concept's vector is read at its last token.
        concept_is_turn: whether that is the user's turn of a chat, or the whole text.
        concepts: words that are injected.
        baselines: words whose mean is taken off every concept's vector.
        setting: turns (role, text) before every trial.
        detection: asks whether something is injected, and what.
        about: asks whether it is `{word}`.
        yes, no: what an affirmative and a negative answer contain; the first entry is the answer
            in logits, by its first token.
        naming: how an affirmative answer begins, up to where the concept is named.
        answer_tokens: the most tokens of an answer.
        refusals: phrases of an answer that refuses the question.
        factual: questions whose right answer is no, whatever is injected.
        factual_yes: such questions whose right answer is yes.
        factual_alone: each is a whole text of its own that the model continues with the answer,
            rather than a question in the chat.
        items: one numbered sentence of `{items}`.
        labels: names of the items, single tokens where possible.
        sentences: fill the items.
        localisation: asks which item was injected.
        comparison: asks which of two was injected more strongly.
        reading: asks for the injected word after a sentence.
        repeating: asks to repeat that sentence.
        request: answered by one word, which is put into the model's mouth.
        spoken: that answer, `{word}` in it.
        intended: asks whether the model meant to say that word.
        writing: asks to write `{sentence}` while thinking of `{word}`.
        avoiding: asks to write it while not thinking of `{word}`.
    """

    name: str
    chat: Mapping[str, str]
    chat_template: bool = True
    concept_prompt: str
    concept_is_turn: bool = True
    concepts: tuple[str, ...]
    baselines: tuple[str, ...]
    setting: tuple[Turn, ...]
    detection: str
    about: str
    yes: tuple[str, ...]
    no: tuple[str, ...]
    naming: str
    answer_tokens: int = 40
    refusals: tuple[str, ...]
    factual: tuple[str, ...]
    factual_yes: tuple[str, ...]
    factual_alone: bool = False
    items: str
    labels: tuple[str, ...]
    sentences: tuple[str, ...]
    localisation: str
    comparison: str
    reading: str
    repeating: str
    request: str
    spoken: str = "{word}."
    intended: str
    writing: str
    avoiding: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                plain = tuple(tuple(each) if isinstance(each, list) else each for each in value)
                object.__setattr__(self, field.name, plain)
        self._check_lists()
        for name, marks in _MARKS.items():
            self._check_marks(name, marks)

    def _check_lists(self) -> None:
        for name, least in _LEAST.items():
            words = getattr(self, name)
            if len(words) < least or len(set(words)) != len(words):
                raise ConfigError(
                    f"the wording {self.name!r} has {len(words)} {name}, {len(set(words))} of them "
                    f"distinct; give at least {least}, all distinct"
                )
        if set(self.concepts) & set(self.baselines):
            shared = sorted(set(self.concepts) & set(self.baselines))[0]
            raise ConfigError(
                f"the wording {self.name!r} has {shared!r} among its concepts and its baselines; "
                "put it into one of them"
            )
        missing = {"user", "assistant", "joint"} - set(self.chat)
        if missing:
            raise ConfigError(
                f"the chat of the wording {self.name!r} lacks {sorted(missing)[0]!r}; it needs "
                "user, assistant and joint"
            )

    def _check_marks(self, name: str, marks: tuple[str, ...]) -> None:
        value = getattr(self, name)
        for text in (value,) if isinstance(value, str) else value:
            lacking = [mark for mark in marks if mark not in text]
            if lacking:
                raise ConfigError(
                    f"the wording {self.name!r}: {name} is {text!r} without {lacking[0]}; write "
                    f"{' and '.join(marks)} where they belong"
                )


_LEAST = {
    "concepts": 4,
    "baselines": 2,
    "yes": 1,
    "no": 1,
    "factual": 1,
    "factual_yes": 1,
    "labels": 2,
    "sentences": 2,
}
_MARKS = {
    "concept_prompt": ("{word}",),
    "detection": ("{n}",),
    "about": ("{n}", "{word}"),
    "items": ("{label}", "{sentence}"),
    "localisation": ("{items}", "{n}"),
    "comparison": ("{items}", "{n}"),
    "reading": ("{sentence}", "{n}"),
    "repeating": ("{sentence}", "{n}"),
    "spoken": ("{word}",),
    "intended": ("{n}",),
    "writing": ("{word}", "{sentence}"),
    "avoiding": ("{word}", "{sentence}"),
}


def read_wording(source: str | Path) -> Wording:
    """A built-in wording by name, or one of a JSON file.

    Args:
        source: `english`, `specimen`, or a path.

    Raises:
        ConfigError: missing, not JSON, or a prompt is missing, unknown or lacks its marks.
    """
    path = _FOLDER / f"{source}.json" if source in BUILT_IN else Path(source)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(
            f"there is no wording at {str(source)!r}; use {' or '.join(BUILT_IN)}, or the path of "
            "a JSON file in their form"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); correct it") from None
    return _wording(path, record)


def _wording(path: Path, record: Any) -> Wording:
    if not isinstance(record, dict):
        raise ConfigError(f"{path} holds {type(record).__name__}; write a JSON object")
    known = {field.name: field for field in fields(Wording)}
    needed = {name for name, field in known.items() if field.default is MISSING}
    wrong = sorted((needed - set(record)) | (set(record) - set(known)))
    if wrong:
        state = "unknown" if wrong[0] not in known else "missing"
        raise ConfigError(
            f"{path}: the entry {wrong[0]!r} is {state}; a wording has {', '.join(known)}"
        )
    try:
        return Wording(**record)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read as a wording ({error})") from None
