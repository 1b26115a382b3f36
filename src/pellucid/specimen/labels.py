"""Ground truth for every token of the specimen's corpus."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

Split = Literal["train", "heldout"]


class Label(NamedTuple):
    """What one token is, in short strings; "" where there is nothing to say.

    `task` names the corpus, `role` the token's part in the sentence, `concept` what it stands for.
    `hidden` is the unwritten value that correct reasoning holds at this token: the state of a
    place, the value of the sub-expression about to be reduced, the person behind a pronoun, the
    profession behind a tool, the emotion an event causes, whether a request is harmful.
    """

    task: str
    role: str = ""
    concept: str = ""
    hidden: str = ""


class LabelledToken(NamedTuple):
    """One token of text with its ground truth."""

    word: str
    label: Label


@dataclass(frozen=True, slots=True)
class Document:
    """One text of one task: as many labels as tokens, special tokens not included."""

    tokens: tuple[str, ...]
    labels: tuple[Label, ...]
    task: str

    @classmethod
    def of(cls, task: str, parts: Sequence[LabelledToken]) -> "Document":
        """Join labelled tokens into a document."""
        return cls(tuple(p[0] for p in parts), tuple(p[1] for p in parts), task)

    @property
    def text(self) -> str:
        """The tokens joined by single spaces, as the tokenizer decodes them."""
        return " ".join(self.tokens)


@cache
def labelled(
    word: str, task: str, role: str = "", concept: str = "", hidden: str = ""
) -> LabelledToken:
    """A token with its label; equal arguments share one object, which keeps generation cheap."""
    return LabelledToken(word, Label(task, role, concept, hidden))
