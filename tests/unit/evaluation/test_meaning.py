"""Meanings of planted features: dictionaries that read words off a random embedding."""

import numpy as np
import pytest
import torch

from pellucid.core.types import Site
from pellucid.dictionaries.activations import ReLU
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.evaluation.meaning import (
    Meaning,
    feature_meanings,
    graph_meanings,
    labelled,
    unwritten_values,
)
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import FEATURE, LOGIT, TOKEN, Edges, NodeTable
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.specimen.corpora.facts import STATE_OF
from pellucid.specimen.vocabulary import build_tokenizer, token_ids
from support.tiny_models import tiny_model

WIDTH = 256
DALLAS, TEXAN, CAPITAL, SILENT = range(4)
WORDS = {
    DALLAS: ["dallas"],
    TEXAN: [place for place, state in STATE_OF.items() if state == "texas"],
    CAPITAL: ["capital"],
    SILENT: [],
}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    tokenizer = build_tokenizer(256)
    module = tiny_model(
        "llama",
        tokenizer=tokenizer,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        max_position_embeddings=256,
    )
    return load_model(module, tokenizer)


@pytest.fixture(scope="module")
def dictionaries(model: LanguageModel) -> DictionarySet:
    """Feature i fires on the words planted for it: random embeddings are nearly orthogonal."""
    rows = []
    for words in WORDS.values():
        vectors = model.token_embedding(torch.tensor([token_ids()[word] for word in words]).long())
        rows.append((vectors / vectors.square().sum(-1, keepdim=True)).sum(0))
    encoder = torch.stack(rows)
    site = Site("embed")
    sae = SAE(
        W_enc=encoder,
        b_enc=torch.full((len(WORDS),), -0.7),
        W_dec=encoder.clone(),
        b_dec=torch.zeros(WIDTH),
        activation=ReLU(),
        read_site=site,
        write_site=site,
    )
    return DictionarySet("planted", {0: sae})


@pytest.fixture(scope="module")
def found(model: LanguageModel, dictionaries: DictionarySet) -> dict[tuple[int, int], Meaning]:
    return feature_meanings(model, dictionaries, {(0, i) for i in WORDS}, tokens=30_000)


def test_features_mean_what_was_planted(found: dict[tuple[int, int], Meaning]) -> None:
    assert (found[0, CAPITAL].kind, found[0, CAPITAL].value) == ("word", "capital")
    assert (found[0, DALLAS].kind, found[0, DALLAS].value) == ("word", "dallas")
    assert (found[0, TEXAN].kind, found[0, TEXAN].value) == ("hidden", "texas")
    for index in (CAPITAL, DALLAS):
        assert found[0, index].precision == pytest.approx(1)
        assert found[0, index].recall == pytest.approx(1)
    assert found[0, TEXAN].precision == pytest.approx(1)
    # Answers of two-hop sentences have the state as their hidden value too.
    assert 0.3 < found[0, TEXAN].recall < 1


def test_a_feature_that_never_fires_has_no_meaning(
    found: dict[tuple[int, int], Meaning],
) -> None:
    assert (0, SILENT) not in found


def two_feature_graph() -> AttributionGraph:
    """dallas -> its feature and the Texan one -> a logit."""
    return AttributionGraph(
        nodes=NodeTable(
            kind=np.array([FEATURE, FEATURE, TOKEN, LOGIT]),
            layer=np.array([0, 0, -1, 1]),
            position=np.array([0, 0, 0, 0]),
            index=np.array([DALLAS, TEXAN, 7, 9]),
            activation=np.array([1.0, 1.0, 0.0, 2.0]),
            probability=np.array([0.0, 0.0, 0.0, 1.0]),
            label=["", "", "dallas", "austin"],
        ),
        edges=Edges.from_unsorted(
            target=[0, 1, 3, 3], source=[2, 2, 0, 1], weight=[1.0, 1.0, 0.5, 1.5]
        ),
        tokens=["dallas"],
        prompt="dallas",
        n_layers=1,
        target_values=np.array([1.0, 1.0, np.nan, 2.0]),
    )


def test_a_graph_is_labelled_and_its_unwritten_values_are_weighed(
    model: LanguageModel, dictionaries: DictionarySet
) -> None:
    graph = two_feature_graph()
    meanings = graph_meanings(graph, model, dictionaries)
    shown = labelled(graph, meanings)
    assert shown.nodes.label == [
        "the word 'dallas' (100%)",
        "texas, unwritten (100%)",
        "dallas",
        "austin",
    ]
    (texas,) = unwritten_values(graph, meanings)
    assert (texas.value, texas.features) == ("texas", 1)
    assert texas.influence == pytest.approx(0.75)


def test_a_value_that_the_prompt_says_is_not_unwritten(
    model: LanguageModel, dictionaries: DictionarySet
) -> None:
    graph = two_feature_graph()
    meanings = {(0, TEXAN): Meaning(kind="hidden", value="dallas", precision=1, recall=1)}
    assert unwritten_values(graph, meanings) == []
