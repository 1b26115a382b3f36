"""Annotated text: which concepts every token of the specimen's corpus belongs to."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.types import AnySite
from pellucid.harvest.rows import Row, padded_batches
from pellucid.models.model import LanguageModel
from pellucid.specimen.labels import Document, Label, Split
from pellucid.specimen.mixture import document
from pellucid.specimen.vocabulary import BOS_ID, token_ids

FEWEST_TOKENS = 40
"""A concept of fewer tokens is not measured."""
_POSITIONS_AT_ONCE = 4096

ConceptName = tuple[str, str]
"""Kind and value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedText:
    """N tokens of D documents, and what the model has at them.

    Attributes:
        members: which of C concepts each token belongs to.
        document: each token's document.
        values: activations by site.
    """

    members: Bool[Tensor, "N C"]
    document: Int[Tensor, " N"]
    values: dict[AnySite, Float[Tensor, "N d"]]


def draw_documents(split: Split, *, tokens: int, seed: int) -> list[Document]:
    """Documents of the corpus that hold about `tokens` tokens, the shortest first."""
    drawn: list[Document] = []
    held = 0
    while held < tokens:
        drawn.append(document(seed, len(drawn), split=split))
        held += len(drawn[-1].tokens)
    return sorted(drawn, key=lambda text: len(text.tokens))


def shared_concepts(*texts: Sequence[Document]) -> list[ConceptName]:
    """The concepts that every text has at `FEWEST_TOKENS` tokens or more, on two words or more.

    A concept on one word alone is that word, and says nothing of generality.
    """
    kept: set[ConceptName] | None = None
    for text in texts:
        tokens: Counter[ConceptName] = Counter()
        words: defaultdict[ConceptName, set[str]] = defaultdict(set)
        for each in text:
            for word, label in zip(each.tokens, each.labels, strict=True):
                for name in concepts_of(word, label):
                    tokens[name] += 1
                    words[name].add(word)
        found = {name for name, n in tokens.items() if n >= FEWEST_TOKENS and len(words[name]) > 1}
        kept = found if kept is None else kept & found
    return sorted(kept or ())


def concepts_of(word: str, label: Label) -> Iterator[ConceptName]:
    """The unwritten value, the concept where it is not the word itself, and the role."""
    if label.hidden:
        yield "hidden", label.hidden
    if label.concept and label.concept != word:
        yield "concept", label.concept
    if label.role:
        yield "role", f"{label.task}: {label.role}"


@torch.no_grad()
def annotated(
    model: LanguageModel,
    documents: Sequence[Document],
    concepts: Sequence[ConceptName],
    sites: Sequence[AnySite],
) -> AnnotatedText:
    """Run the model on documents, each by itself.

    Args:
        model: the specimen, or another model with its vocabulary.
        documents: the shortest first.
        concepts: which to mark.
        sites: what to keep of the model.
    """
    numbers = {name: number for number, name in enumerate(concepts)}
    lengths = torch.tensor([len(each.tokens) for each in documents])
    members = torch.zeros(int(lengths.sum()), len(concepts), dtype=torch.bool)
    labelled = (pair for each in documents for pair in zip(each.tokens, each.labels, strict=True))
    for token, (word, label) in enumerate(labelled):
        for name in concepts_of(word, label):
            if name in numbers:
                members[token, numbers[name]] = True
    ids = token_ids()
    rows = [
        Row([BOS_ID, *(ids[word] for word in each.tokens)], list(range(1, len(each.tokens) + 1)))
        for each in documents
    ]
    parts: dict[AnySite, list[Tensor]] = {site: [] for site in sites}
    for batch in padded_batches(rows, max_tokens=_POSITIONS_AT_ONCE):
        values = model.activations(
            batch.ids.to(model.device), list(parts), batch.mask.to(model.device)
        )
        for site, found in parts.items():
            found.append(values[site][batch.text.to(model.device)].float())
    return AnnotatedText(
        members=members,
        document=torch.arange(len(documents)).repeat_interleave(lengths),
        values={site: torch.cat(found) for site, found in parts.items()},
    )
