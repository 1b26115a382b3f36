"""One `Trace` serves many graphs: prefixes, targets and repeated calls agree with fresh traces."""

import numpy as np
import pytest
import torch

from pellucid.attribution.explain import Direction, Feature, Logit, LogitDifference, TopLogits
from pellucid.attribution.trace import Trace, trace
from pellucid.core.errors import ConfigError, DictionaryError, PromptError
from pellucid.core.types import Site
from pellucid.graphs.tables import FEATURE, LOGIT
from pellucid.models.load import load_model
from support.tiny_dictionaries import BASES, relu, tiny_basis, tiny_set, tiny_transcoders
from support.tiny_models import tiny_model, word_tokenizer

IDS = [11, 42, 7, 42, 30, 18, 9, 25, 31]


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), word_tokenizer())


def same_graph(a, b):
    for name in ("kind", "layer", "position", "index"):
        np.testing.assert_array_equal(getattr(a.nodes, name), getattr(b.nodes, name))
    np.testing.assert_allclose(a.nodes.activation, b.nodes.activation, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(a.edges.target, b.edges.target)
    np.testing.assert_array_equal(a.edges.source, b.edges.source)
    np.testing.assert_allclose(
        a.edges.weight, b.edges.weight, atol=1e-5 * np.abs(a.edges.weight).max()
    )
    assert a.tokens == b.tokens
    assert a.scores == pytest.approx(b.scores, rel=1e-4)


@pytest.mark.parametrize("basis", [b for b in BASES if b != "neurons"])
def test_the_graph_of_a_prefix_is_the_graph_of_the_prefix_alone(llama, basis):
    dictionaries, missing = tiny_basis(llama, basis, relu())
    whole = Trace(llama, IDS, dictionaries, missing=missing)
    for length in (4, 6, 9):
        alone = trace(llama, IDS[:length], dictionaries, missing=missing, causal=False)
        same_graph(whole.graph(position=length), alone)


def test_rows_are_computed_once_and_capped_graphs_do_not_depend_on_what_was_traced_before(llama):
    dictionaries = tiny_transcoders(llama, activation=relu())
    used = Trace(llama, IDS, dictionaries)
    used.graph()
    assert used.rows.n_rows == len(used.table.feature_columns)
    before = len(used.rows.blocks)
    capped = used.graph(max_features=40, position=6)
    assert len(used.rows.blocks) == before, "every row was there"
    same_graph(capped, Trace(llama, IDS, dictionaries).graph(max_features=40, position=6))
    assert capped.nodes.counts()["feature"] == 40


def test_a_difference_is_the_difference_of_two_logits(llama):
    whole = Trace(llama, IDS, tiny_transcoders(llama))
    graphs = [whole.graph(Logit(20)), whole.graph(Logit("w9"))]
    both = whole.graph(LogitDifference(20, "w9"))
    rows = [dense_rows(graph)[-1] for graph in (*graphs, both)]
    assert both.nodes.label[-1] == "w20 minus w9"
    np.testing.assert_allclose(rows[2], rows[0] - rows[1], atol=1e-5)
    value = both.target_values[-1]
    logits = llama.logits(llama.encode_ids(IDS)[None])[0, -1]
    assert value == pytest.approx(float(logits[20] - logits[whole_id(llama, "w9")]), rel=1e-4)


def whole_id(model, word):
    return model.tokenizer.convert_tokens_to_ids(word)


def dense_rows(graph):
    dense = np.zeros((len(graph.nodes), len(graph.nodes)))
    dense[graph.edges.target, graph.edges.source] = graph.edges.weight
    return dense


def test_a_feature_as_target_has_the_row_it_has_as_a_node(llama):
    whole = Trace(llama, IDS, tiny_transcoders(llama, activation=relu()))
    graph = whole.graph()
    node = int(np.flatnonzero(graph.nodes.is_kind(FEATURE) & (graph.nodes.layer == 2))[3])
    wanted = Feature(2, int(graph.nodes.index[node]), int(graph.nodes.position[node]))
    own = whole.graph(wanted)
    output = own.nodes.is_kind(LOGIT)
    assert own.nodes.counts()["logit"] == 1
    assert own.nodes.probability[output] == 1
    assert own.target_values[output] == pytest.approx(graph.nodes.activation[node], rel=1e-5)
    values = graph.edges.weight[graph.edges.target == node]
    np.testing.assert_allclose(
        np.sort(own.edges.weight[own.edges.target == len(own.nodes) - 1]),
        np.sort(values),
        atol=1e-6,
    )
    assert (own.nodes.layer[own.nodes.is_kind(FEATURE)] < 2).all(), "only what can reach it"


@pytest.mark.parametrize("kind", ["resid_pre", "resid_mid", "resid_post"])
def test_a_direction_is_read_where_it_says(llama, kind):
    site, position = Site(kind, 1), 5
    vector = torch.randn(llama.d_model, generator=torch.Generator().manual_seed(0))
    graph = Trace(llama, IDS, tiny_transcoders(llama)).graph(Direction(site, vector, position))
    value = llama.activations(llama.encode_ids(IDS)[None], [site])[site][0, position] @ vector
    assert graph.target_values[-1] == pytest.approx(float(value), rel=1e-4)
    assert graph.row_sums()[-1] == pytest.approx(float(value), rel=1e-3)


def test_several_targets_share_one_graph(llama):
    whole = Trace(llama, IDS, tiny_transcoders(llama))
    graph = whole.graph(TopLogits(max_logits=2), LogitDifference(20, 21))
    outputs = graph.nodes.is_kind(LOGIT)
    assert outputs.sum() == 3
    assert graph.nodes.probability[outputs][-1] == pytest.approx(0.5)
    assert [record["kind"] for record in graph.metadata["targets"]] == [
        "logit",
        "logit",
        "difference",
    ]


def test_influence_left_out_falls_to_epsilon_and_is_reported(llama):
    whole = Trace(llama, IDS, tiny_transcoders(llama, activation=relu(), features=200))
    everything = whole.graph()
    assert everything.metadata["unexplored_influence"] == pytest.approx(0, abs=1e-6)
    half = whole.graph(epsilon=0.5)
    assert 0 < half.metadata["unexplored_influence"] <= 0.5
    assert half.nodes.counts()["feature"] < everything.nodes.counts()["feature"]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([Logit("nothing")], PromptError, "'nothing' is not one token"),
        ([Logit(10_000)], PromptError, "token 10000 is not in the vocabulary"),
        ([LogitDifference(5, 5)], ConfigError, "itself"),
        ([Feature(9, 0)], ConfigError, "there is no layer 9"),
        ([Feature(0, 10_000)], PromptError, "feature 10000 of layer 0 is not active at position 9"),
        ([Feature(0, 0, 99)], ConfigError, "position 99 is not in the prompt"),
        (
            [Direction(Site("mlp_out", 0), torch.ones(3))],
            ConfigError,
            "cannot be read at mlp_out@0",
        ),
        ([Direction(Site("resid_pre", 0), torch.ones(3))], ConfigError, "has shape"),
    ],
)
def test_targets_that_do_not_exist_are_named(llama, targets, error, message):
    with pytest.raises(error, match=message):
        Trace(llama, IDS, tiny_transcoders(llama)).graph(*targets)


def test_missing_layers_are_named_and_can_be_filled(llama):
    some = tiny_set(llama, ["plt", None, "plt"])
    with pytest.raises(DictionaryError, match="no dictionary for layer 1 of 3"):
        Trace(llama, IDS, some)
    with pytest.raises(ConfigError, match="missing is 'guess'"):
        Trace(llama, IDS, some, missing="guess")
    kinds = Trace(llama, IDS, some, missing="error").graph().nodes
    assert set(kinds.layer[kinds.is_kind(FEATURE)]) == {0, 2}
    with pytest.raises(DictionaryError, match="stand at the same place"):
        Trace(llama, IDS, tiny_set(llama, ["sae", "sae-pre", "plt"]))
