"""What features of the specimen stand for, read off the ground truth of its corpus.

Every token of the corpus has a label, so a feature's meaning is a measurement: of all things that
can be said of a token, the one that best tells where the feature is active.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import SparseCodes
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import influence
from pellucid.graphs.tables import FEATURE
from pellucid.harvest.rows import Row, padded_batches
from pellucid.models.model import LanguageModel
from pellucid.specimen.labels import Document, Label
from pellucid.specimen.mixture import document
from pellucid.specimen.vocabulary import BOS_ID, token_ids

FeaturePlace = tuple[int, int]
"""Layer and index of a feature."""
CLEAR = 0.25
"""The precision from which a meaning is shown: far above the share of any but common words."""
_POSITIONS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a feature's activation falls on.

    Attributes:
        kind: `word` (the token itself), `next` (the token after it), or a part of its label:
            `role`, `concept`, or `hidden`, the unwritten value that correct reasoning holds here.
        value: which word, role, concept or hidden value.
        precision: share of the feature's activation that falls on such tokens.
        recall: share of such tokens on which the feature is active.
    """

    kind: str
    value: str
    precision: float
    recall: float

    def __str__(self) -> str:
        return f"{_TEXTS[self.kind].format(self.value)} ({self.precision:.0%})"


_TEXTS = {
    "hidden": "{}, unwritten",
    "concept": "{}",
    "word": "the word '{}'",
    "next": "just before '{}'",
    "role": "{}",
}


@torch.no_grad()
def feature_meanings(
    model: LanguageModel,
    dictionaries: DictionarySet,
    features: Collection[FeaturePlace],
    *,
    tokens: int = 40_000,
    seed: int = 0,
) -> dict[FeaturePlace, Meaning]:
    """The best description of each feature by F1, for those that are ever active.

    Args:
        model: the specimen, or another model with its vocabulary.
        dictionaries: transcoders or SAEs of the model.
        features: which features to describe.
        tokens: how much of the corpus to measure on.
        seed: of the corpus.
    """
    said = _Sayings(_documents(tokens, seed))
    tallies = {
        layer: _Tally([index for where, index in features if where == layer], len(said.names))
        for layer in sorted({layer for layer, _ in features})
    }
    sites = {layer: dictionaries[layer].read_site for layer in tallies}
    start = 0
    for batch in padded_batches(said.rows, max_tokens=_POSITIONS_AT_ONCE):
        keys_NK = torch.cat(said.keys[start : start + len(batch.ids)])
        start += len(batch.ids)
        values = model.activations(batch.ids, list(sites.values()), batch.mask)
        for layer, tally in tallies.items():
            tally.add(dictionaries[layer].encode(values[sites[layer]][batch.text]), keys_NK)
    return {
        (layer, index): meaning
        for layer, tally in tallies.items()
        for index, meaning in tally.meanings(said)
    }


def _documents(tokens: int, seed: int) -> list[Document]:
    """Documents of the corpus that hold about `tokens` tokens, the shortest first."""
    drawn: list[Document] = []
    held = 0
    while held < tokens:
        drawn.append(document(seed, len(drawn)))
        held += len(drawn[-1].tokens)
    return sorted(drawn, key=lambda text: len(text.tokens))


class _Sayings:
    """Everything that can be said of each token, numbered.

    Attributes:
        rows: token ids of each document, `<bos>` first.
        keys: for each document the numbers of what is said of its tokens, [tokens, kinds].
        names: number -> (kind, value); number 0 says nothing.
        tokens: number -> how many tokens it is said of.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        vocabulary = token_ids()
        self.rows = [
            Row(
                [BOS_ID, *(vocabulary[word] for word in text.tokens)],
                list(range(1, len(text.tokens) + 1)),
            )
            for text in documents
        ]
        numbers: dict[tuple[str, str], int] = {("", ""): 0}
        self.keys: list[Int[Tensor, "N K"]] = []
        for text in documents:
            following = (*text.tokens[1:], "")
            rows = [
                [
                    numbers.setdefault((kind, value), len(numbers)) if value else 0
                    for kind, value in _said(word, label, after)
                ]
                for word, label, after in zip(text.tokens, text.labels, following, strict=True)
            ]
            self.keys.append(torch.tensor(rows))
        self.names = list(numbers)
        counts = torch.bincount(torch.cat(self.keys).flatten(), minlength=len(self.names))
        self.tokens: Float[Tensor, " M"] = counts.float()


def _said(word: str, label: Label, after: str) -> list[tuple[str, str]]:
    return [
        ("hidden", label.hidden),
        ("concept", label.concept if label.concept != word else ""),
        ("word", word),
        ("next", after),
        ("role", f"{label.task}: {label.role}" if label.role else ""),
    ]


class _Tally:
    """Where some features of one layer are active: F of them, M things that can be said."""

    def __init__(self, indices: Sequence[int], sayings: int) -> None:
        self._indices = torch.tensor(indices)
        self._mass_FM = torch.zeros(len(indices), sayings)
        self._fires_FM = torch.zeros(len(indices), sayings)
        self._total_F = torch.zeros(len(indices))

    def add(self, codes: SparseCodes, keys_NK: Int[Tensor, "N K"]) -> None:
        """Take in N tokens."""
        slots = torch.full((codes.num_features,), -1)
        slots[self._indices] = torch.arange(len(self._indices))
        values, slots_of = codes.values.cpu(), slots[codes.indices.long().cpu()]
        token, place = torch.nonzero((slots_of >= 0) & (values > 0), as_tuple=True)
        slot, value = slots_of[token, place], values[token, place].float()
        self._total_F.index_add_(0, slot, value)
        for keys_N in keys_NK.T:
            where = (slot, keys_N[token])
            self._mass_FM.index_put_(where, value, accumulate=True)
            self._fires_FM.index_put_(where, torch.ones_like(value), accumulate=True)

    def meanings(self, said: _Sayings) -> Iterator[tuple[int, Meaning]]:
        """Index and best description of each feature that was ever active."""
        precision = self._mass_FM / self._total_F[:, None].clamp_min(1e-30)
        recall = self._fires_FM / said.tokens.clamp_min(1)
        f1 = 2 * precision * recall / (precision + recall).clamp_min(1e-30)
        f1[:, 0] = -1
        best = f1.argmax(dim=1)
        for slot, key in enumerate(best.tolist()):
            if self._total_F[slot] > 0:
                kind, value = said.names[key]
                yield (
                    int(self._indices[slot]),
                    Meaning(
                        kind=kind,
                        value=value,
                        precision=float(precision[slot, key]),
                        recall=float(recall[slot, key]),
                    ),
                )


def graph_meanings(
    graph: AttributionGraph,
    model: LanguageModel,
    dictionaries: DictionarySet,
    *,
    tokens: int = 40_000,
    seed: int = 0,
) -> dict[FeaturePlace, Meaning]:
    """What the features of a graph stand for, where one thing tells enough of a feature.

    Args:
        graph: a graph of the model.
        model: see `feature_meanings`, as all that follows.
        dictionaries: those the graph was traced with.
        tokens: how much of the corpus to measure on.
        seed: of the corpus.
    """
    places = set(_feature_places(graph).values())
    found = feature_meanings(model, dictionaries, places, tokens=tokens, seed=seed)
    return {place: each for place, each in found.items() if each.precision >= CLEAR}


def labelled(graph: AttributionGraph, meanings: Mapping[FeaturePlace, Meaning]) -> AttributionGraph:
    """The graph with its features labelled by what they stand for."""
    labels = list(graph.nodes.label)
    for node, place in _feature_places(graph).items():
        if place in meanings:
            labels[node] = str(meanings[place])
    return replace(graph, nodes=replace(graph.nodes, label=labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwritten:
    """A value that correct reasoning holds though the prompt does not say it, found in a graph.

    Attributes:
        value: the value, such as the state that contains a city.
        features: how many feature nodes stand for it.
        influence: their share of all features' influence.
    """

    value: str
    features: int
    influence: float


def unwritten_values(
    graph: AttributionGraph, meanings: Mapping[FeaturePlace, Meaning]
) -> list[Unwritten]:
    """The unwritten values that a graph's features stand for, the most influential first."""
    places = _feature_places(graph)
    said = {token.strip() for token in graph.tokens}
    values = {each.value for each in meanings.values() if each.kind == "hidden"} - said
    share = influence(graph)
    total = sum(share[node] for node in places)
    found = []
    for value in values:
        members = [
            node
            for node, place in places.items()
            if place in meanings and meanings[place].value == value
        ]
        weight = float(share[members].sum() / total)
        found.append(Unwritten(value=value, features=len(members), influence=weight))
    return sorted(found, key=lambda each: -each.influence)


def _feature_places(graph: AttributionGraph) -> dict[int, FeaturePlace]:
    """Node -> layer and index, for every feature node."""
    nodes = graph.nodes
    return {
        node: (int(nodes.layer[node]), int(nodes.index[node]))
        for node in np.flatnonzero(nodes.kind == FEATURE).tolist()
    }
