"""What is behind a graph's edges: the record says what the model computed, and adds up."""

import json

import numpy as np
import pytest

from pellucid.attribution.attention.explain import explain_attention
from pellucid.attribution.explain import LogitDifference, TopLogits, explained
from pellucid.attribution.trace import Trace, trace
from pellucid.core.errors import ConfigError
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.page import to_html
from pellucid.graphs.prune import flow_between, surviving
from pellucid.graphs.tables import NODE_KINDS
from pellucid.models.load import load_model
from support.tiny_dictionaries import tiny_basis
from support.tiny_models import tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]


def traced(family="llama", basis="skip", prompt=PROMPT):
    model = load_model(tiny_model(family), word_tokenizer())
    dictionaries, missing = tiny_basis(model, basis)
    return Trace(model, prompt, dictionaries, missing=missing)


@pytest.fixture(scope="module")
def whole():
    return traced()


@pytest.fixture(scope="module")
def graph(whole):
    return whole.graph(attention=True)


def numbers(graph):
    nodes = graph.nodes
    rows = zip(nodes.kind, nodes.layer, nodes.position, nodes.index, strict=True)
    return {(NODE_KINDS[k], int(a), int(b), int(c)): i for i, (k, a, b, c) in enumerate(rows)}


def number(graph, name):
    place = (name.get(part, -1) for part in ("layer", "position", "index"))
    return numbers(graph)[(name["kind"], *place)]


def test_every_edge_is_one_of_the_graph_and_the_sum_of_its_parts(graph):
    record = graph.metadata["attention"]
    assert record["max_error"] <= 1e-5
    edges = {
        pair: weight
        for *pair, weight in zip(
            graph.edges.source.tolist(),
            graph.edges.target.tolist(),
            graph.edges.weight,
            strict=True,
        )
        for pair in [tuple(pair)]
    }
    assert record["split_edges"] == len(record["edges"]) > 10
    for edge in record["edges"]:
        pair = number(graph, edge["source"]), number(graph, edge["target"])
        assert edge["weight"] == pytest.approx(float(edges[pair]))
        parts = edge["residual"] + edge["other_heads"]
        parts += sum(head["loading"] for head in edge["heads"])
        assert parts == pytest.approx(edge["weight"], abs=1e-4)
        for head in edge["heads"]:
            assert edge["source"]["position"] <= head["query"] <= edge["target"]["position"]


def test_the_edges_are_those_of_the_pruned_graph_with_most_influence(whole, graph):
    nodes, edges = surviving(graph, 0.8, 0.98)
    flow = np.where(edges, flow_between(graph, nodes), 0)
    plain = whole.graph()
    wanted = explained(whole.linear, [TopLogits()], len(PROMPT)).targets
    few = explain_attention(whole.linear, whole.table, plain, wanted, edges=5, check=False)
    best = np.argsort(-flow, kind="stable")[:5]
    record = few.metadata["attention"]
    assert [number(graph, edge["source"]) for edge in record["edges"]] == (
        graph.edges.source[best].tolist()
    )
    assert record["influence_covered"] == pytest.approx(flow[best].sum() / flow.sum())
    assert record["check"] is None
    assert plain.metadata == {k: v for k, v in few.metadata.items() if k != "attention"}


def test_heads_are_ranked_by_the_influence_they_carry(whole, graph):
    record = graph.metadata["attention"]
    shares = [head["share"] for head in record["heads"]]
    assert len(shares) == 6
    assert shares == sorted(shares, reverse=True)
    wanted = explained(whole.linear, [TopLogits()], len(PROMPT)).targets
    every = explain_attention(
        whole.linear, whole.table, whole.graph(), wanted, heads=100, check=False
    ).metadata["attention"]
    total = sum(head["share"] for head in every["heads"]) + every["residual_share"]
    assert total == pytest.approx(1)
    for head in every["heads"]:
        qk = head["qk"]
        assert 0 < head["attention_share"] <= 1 + 1e-9
        pattern = whole.linear.local.run.layers[head["layer"]].pattern[head["head"]]
        assert qk["probability"] == pytest.approx(float(pattern[qk["query"], qk["key"]]))
        assert qk["sum_error"] <= 1e-4
        assert qk["pattern_max_error"] <= 1e-5


def test_the_check_of_all_scores_pools_those_of_each(graph):
    record = graph.metadata["attention"]
    checks = [c for head in record["heads"] if (c := head["qk"]["check"]) is not None]
    assert len(checks) >= 2
    assert record["check"]["n"] == sum(check["n"] for check in checks)
    assert record["check"]["scores"] == len(checks)
    assert record["check"]["frozen_max_error"] <= 1e-4
    assert record["check"]["spearman_real"] is not None


@pytest.mark.parametrize(
    ("family", "basis"),
    [("gemma2", "clt"), ("gpt_neox", "mixed"), ("gpt2", "sae"), ("qwen3", "neurons")],
)
def test_on_every_basis(family, basis):
    graph = traced(family, basis).graph(attention=True, max_features=60)
    record = graph.metadata["attention"]
    assert record["max_error"] <= 1e-5
    checks = [c for head in record["heads"] if (c := head["qk"]["check"]) is not None]
    assert all(check["frozen_max_error"] <= 1e-3 for check in checks)


def test_it_is_kept_in_the_file_and_shown_on_the_page(graph, tmp_path):
    graph.save(tmp_path / "graph.safetensors")
    loaded = AttributionGraph.load(tmp_path / "graph.safetensors")
    assert loaded.metadata["attention"] == json.loads(json.dumps(graph.metadata["attention"]))
    assert "Layer ${layer} head ${head}" in to_html(loaded)


def test_other_targets_and_prefixes(whole):
    graph = whole.graph(LogitDifference(11, 12), position=3, attention=True)
    record = graph.metadata["attention"]
    assert record["max_error"] <= 1e-5
    assert {head["qk"]["query"] for head in record["heads"]} <= {0, 1, 2, 3}
    logits = [edge for edge in record["edges"] if edge["target"]["kind"] == "logit"]
    assert logits and all(edge["target"]["index"] == 11 for edge in logits)


def test_where_nothing_but_the_first_token_is_known(whole):
    graph = whole.graph(position=0, attention=True)
    assert graph.metadata["attention"]["max_error"] <= 1e-5
    assert graph.metadata["attention"]["check"] is None
    to_html(graph)


def test_the_same_seed_gives_the_same_record():
    first, second = (traced().graph(attention=True) for _ in range(2))
    assert first.metadata["attention"] == second.metadata["attention"]
    other = traced().graph(attention=True, seed=1).metadata["attention"]
    one = first.metadata["attention"]
    assert other["check"] != one["check"]
    assert other["edges"] == one["edges"]


def test_limits_out_of_range_are_refused(whole):
    wanted = explained(whole.linear, [TopLogits()], len(PROMPT)).targets
    for name in ("edges", "heads"):
        with pytest.raises(ConfigError, match=f"{name} is 0; give a number of at least 1"):
            explain_attention(whole.linear, whole.table, whole.graph(), wanted, **{name: 0})


def test_a_traced_graph_has_it_only_when_asked():
    model = load_model(tiny_model("llama"), word_tokenizer())
    dictionaries, _ = tiny_basis(model, "plt")
    assert "attention" not in trace(model, PROMPT, dictionaries, causal=False).metadata
    graph = trace(model, PROMPT, dictionaries, causal=False, attention=True)
    assert graph.metadata["attention"]["heads"]
