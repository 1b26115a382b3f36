"""Choice of features, splitting and absorption on cases made by hand."""

import pytest
import torch

from pellucid.core.errors import ConfigError, DataError
from pellucid.core.types import Site, SparseCodes
from pellucid.dictionaries.activations import ReLU
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.evaluation import evaluate
from pellucid.evaluation.concepts import measure_concepts
from pellucid.evaluation.concepts.choice import choose, firing
from pellucid.evaluation.concepts.measure import document_sums, figures
from pellucid.evaluation.concepts.text import concepts_of, draw_documents, shared_concepts
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.specimen.corpora.facts import RELATIONS
from pellucid.specimen.labels import Document, Label, labelled
from pellucid.specimen.vocabulary import build_tokenizer, token_ids
from support.tiny_models import tiny_model

WIDTH = 256


def codes_of(dense: torch.Tensor) -> SparseCodes:
    """Every entry stored, in an order of its own for each token."""
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(dense.shape[1], generator=generator) for _ in dense])
    return SparseCodes(dense.gather(1, order), order, dense.shape[1])


def active_at(tokens: int, *places: list[int]) -> torch.Tensor:
    """Features that are active, at 1, at the given tokens."""
    dense = torch.zeros(tokens, len(places))
    for feature, where in enumerate(places):
        dense[where, feature] = 1.0
    return dense


def members_at(tokens: int, *places: list[int]) -> torch.Tensor:
    return active_at(tokens, *places) > 0


def test_firing_is_where_features_are_active_in_the_order_asked_for() -> None:
    dense = active_at(5, [0, 1], [2], [], [4])
    found = firing(codes_of(dense), torch.tensor([3, -1, 0, 0, 2]))
    expected = dense[:, [3, 2, 0, 0, 2]] > 0  # feature 2 is never active, as -1 is not
    assert found.equal(expected)


def test_one_perfect_feature_needs_no_other() -> None:
    dense = active_at(10, [0, 1, 2, 3], [0, 1], [8, 9])
    choice = choose(codes_of(dense), members_at(10, [0, 1, 2, 3], [8, 9]))
    assert choice.main.tolist() == [0, 2]
    assert choice.f1.tolist() == [1, 1]
    assert choice.features.tolist() == [1, 1]


def test_features_that_halve_a_concept_share_it_and_useless_ones_do_not() -> None:
    dense = active_at(12, [0, 1, 2, 3], [4, 5, 6], [4, 9, 10, 11], [])
    choice = choose(codes_of(dense), members_at(12, list(range(7))))
    assert choice.features.tolist() == [2]
    assert choice.sets[0, :2].tolist() == [0, 1]
    assert float(choice.f1[0]) == pytest.approx(2 * 4 / (4 + 7))


def test_specific_features_are_precise_and_narrower_than_the_best() -> None:
    # 0 is the best; 1 is a case of it; 2 fires mostly elsewhere; 3 is never active.
    dense = active_at(20, [0, 1, 2, 3, 4], [5], [5, 10, 11], [])
    choice = choose(codes_of(dense), members_at(20, [0, 1, 2, 3, 4, 5]))
    assert choice.specific[:, 0].tolist() == [False, True, False, False]


def test_absorption_needs_silence_specificity_and_the_direction() -> None:
    """Concept at tokens 0-5; feature 0 is silent at 3, 4 and 5, where others are active.

    Token 3: feature 1, specific, writes along feature 0: absorbed. Token 4: feature 2, specific,
    writes elsewhere. Token 5: feature 3 writes along it most but fires mostly outside the concept.
    """
    dense = active_at(12, [0, 1, 2], [3], [4], [5, 8, 9, 10])
    members = members_at(12, [0, 1, 2, 3, 4, 5])
    decoder = torch.zeros(4, 16)
    decoder[0, 0], decoder[1, 0], decoder[2, 1], decoder[3, 0] = 2.0, 1.0, 1.0, 1.0
    codes = codes_of(dense)
    choice = choose(codes, members)
    assert int(choice.main[0]) == 0
    document = torch.tensor([0] * 4 + [1] * 8)
    sums = document_sums(decoder, codes, choice, members, document)
    assert {name: values[:, 0].tolist() for name, values in sums.items()} == {
        "tokens": [4, 2],
        "active": [3, 0],
        "both": [3, 0],
        "any_active": [4, 1],
        "any_both": [4, 1],
        "absorbed": [1, 0],
    }
    found = figures(choice, sums, seed=0)
    assert found.f1 == pytest.approx(2 * 3 / (3 + 6))
    assert found.together == pytest.approx(2 * 5 / (5 + 6))
    assert found.features == 3
    assert found.represented == 1
    assert found.absorbed == pytest.approx(1 / 6)
    for name, (low, high) in found.intervals.items():
        assert low <= getattr(found, name) <= high
    # Where the strongest writer is turned away from the best feature, nothing is absorbed.
    sums = document_sums(
        decoder * torch.tensor([[1], [-1], [1], [1]]), codes, choice, members, document
    )
    assert float(sums["absorbed"].sum()) == 0


def test_a_concept_that_no_feature_stands_for_is_not_absorbed() -> None:
    dense = active_at(20, [0], [1], [2])
    members = members_at(20, list(range(12)))
    choice = choose(codes_of(dense), members)
    sums = document_sums(torch.eye(3), codes_of(dense), choice, members, torch.zeros(20).long())
    found = figures(choice, sums, seed=0)
    assert (found.represented, found.absorbed) == (0, 0)


def test_concepts_are_general_and_on_enough_tokens() -> None:
    assert list(concepts_of("austin", Label("facts", "answer", "austin", "texas"))) == [
        ("hidden", "texas"),
        ("role", "facts: answer"),
    ]
    assert list(concepts_of("she", Label("", "", "anna"))) == [("concept", "anna")]
    alone = Document.of("a", [labelled("x", "a", "only")] * 60)
    shared = Document.of("a", [labelled(w, "a", "many") for w in "xy" * 30])
    assert shared_concepts([alone, shared]) == [("role", "a: many")]
    assert shared_concepts([alone, shared], [alone]) == []


def test_documents_are_those_of_the_split_and_the_shortest_come_first() -> None:
    drawn = draw_documents("heldout", tokens=2_000, seed=3)
    lengths = [len(each.tokens) for each in drawn]
    assert lengths == sorted(lengths)
    assert 2_000 <= sum(lengths) < 2_400
    assert drawn != draw_documents("train", tokens=2_000, seed=3)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """A tiny model with the specimen's vocabulary."""
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
def planted(model: LanguageModel) -> DictionarySet:
    """Feature 0 reads the embeddings of the six relations: it stands for their role."""
    site = Site("embed")
    vectors = model.token_embedding(torch.tensor([token_ids()[word] for word in RELATIONS]))
    reader = (vectors / vectors.square().sum(-1, keepdim=True)).sum(dim=0)
    noise = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)) / WIDTH
    sae = SAE(
        W_enc=torch.cat([reader[None], noise]),
        b_enc=torch.full((4,), -0.5),
        W_dec=torch.cat([reader[None], noise]),
        b_dec=torch.zeros(WIDTH),
        activation=ReLU(),
        read_site=site,
        write_site=site,
    )
    return DictionarySet("planted", {0: sae})


def test_a_planted_feature_stands_for_its_concept_and_controls_do_not(
    model: LanguageModel, planted: DictionarySet
) -> None:
    (report,) = measure_concepts(model, planted, tokens=6_000)
    by_name = {(each.kind, each.value): each for each in report.concepts}
    relation = by_name["role", "facts: relation"]
    assert relation.feature == 0
    assert relation.f1 > 0.7
    assert relation.f1 == max(each.f1 for each in report.concepts)
    assert report.shuffled.f1 < report.figures.f1
    assert report.shuffled.represented == 0


def test_evaluation_reports_concepts_where_they_are_asked_for(
    model: LanguageModel, planted: DictionarySet
) -> None:
    record = evaluate(model, planted, "specimen", tokens=2_500, concepts=True).to_json()
    (report,) = record["concepts"]
    assert set(report) == {"layer", "figures", "random", "shuffled", "concepts"}
    assert {"f1", "together", "features", "represented", "absorbed", "intervals"} == set(
        report["figures"]
    )
    with pytest.raises(DataError, match="no concept of the corpus is at 40 tokens"):
        measure_concepts(model, planted, tokens=100)
    with pytest.raises(ConfigError, match="a list of texts has no annotated concepts"):
        evaluate(model, planted, TextList(["the capital"]), concepts=True)
