"""The graph of a tiny model, against the one that circuit-tracer computed for it.

`benchmarks/peers/make_golden.py` wrote the files: weights, transcoders and circuit-tracer's graph.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from torch import Tensor

from pellucid.attribution.trace import trace
from pellucid.core.types import Site
from pellucid.dictionaries.activations import ReLU
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.graphs.graph import AttributionGraph
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.circuit_tracer import adjacency, compare, compare_judgement, feature_keys
from support.tiny_models import tiny_model, word_tokenizer

FILES = sorted((Path(__file__).parent / "circuit_tracer").glob("*.safetensors"))
CLT, SKIP = "llama_clt", "qwen3_skip"
TOLERANCE = 1e-5  # circuit-tracer's own backends differ by about 1e-6


def read_case(path: Path) -> tuple[LanguageModel, DictionarySet, dict[str, np.ndarray]]:
    """The model, its transcoders, and circuit-tracer's graph."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "transcoder": {}, "graph": {}}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        for name in file.keys():  # noqa: SIM118 (the handle is not iterable)
            part, _, key = name.partition(".")
            parts[part][key] = file.get_tensor(name)
    tokenizer = word_tokenizer(int(metadata["vocabulary"]))
    settings = json.loads(metadata["settings"])
    module = tiny_model(metadata["family"], tokenizer=tokenizer, **settings)
    module.load_state_dict(parts["model"])
    model = load_model(module, tokenizer)
    kind = CrossLayerTranscoder if path.stem == CLT else Transcoder
    dictionaries = {
        layer: read_transcoder(kind, parts["transcoder"], layer) for layer in range(model.n_layers)
    }
    graph = {name: tensor.numpy() for name, tensor in parts["graph"].items()}
    return model, DictionarySet("golden", dictionaries), graph


def read_transcoder(kind: type[Dictionary], tensors: dict[str, Tensor], layer: int) -> Dictionary:
    prefix = f"{layer}."
    mine = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return kind(
        **mine,
        activation=ReLU(),
        read_site=Site("mlp_in", layer),
        write_site=Site("mlp_out", layer),
    )


def traced(path: Path, **limits: int) -> tuple[AttributionGraph, dict[str, np.ndarray]]:
    model, dictionaries, theirs = read_case(path)
    ids = theirs["tokens"].tolist()
    return trace(model, ids, dictionaries, causal=False, **limits), theirs


def test_every_case_is_there():
    assert [path.stem for path in FILES] == ["gemma2", "gpt2", "llama", CLT, SKIP]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_whole_graph_is_that_of_circuit_tracer(path):
    graph, theirs = traced(path)
    np.testing.assert_array_equal(feature_keys(graph), theirs["active_features"])
    result = compare(graph, theirs, skip=path.stem == SKIP)
    assert result.differing_features == 0
    assert result.max_activation_difference <= TOLERANCE
    assert result.max_probability_difference <= TOLERANCE
    assert result.max_edge_difference <= TOLERANCE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scores_influence_and_pruned_sets_are_those_of_circuit_tracer(path):
    graph, theirs = traced(path)
    result = compare_judgement(graph, theirs, skip=path.stem == SKIP)
    assert result.score_difference <= TOLERANCE
    assert result.influence_difference <= TOLERANCE
    assert (result.differing_nodes, result.differing_edges) == (0, 0)
    assert 0 < result.pruned_edges < len(graph.edges.weight)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_capped_graph_keeps_exact_edges(path):
    graph, theirs = traced(path, max_features=9)
    result = compare(graph, theirs, skip=path.stem == SKIP)
    assert result.shared_features == 9
    assert result.max_edge_difference <= TOLERANCE


def test_comparison_sees_a_single_wrong_edge():
    graph, theirs = traced(FILES[0])
    ours = adjacency(graph)
    target, source = np.unravel_index(np.abs(ours).argmax(), ours.shape)
    wrong = theirs["adjacency"].copy()
    wrong[target, source] *= 1.001
    result = compare(graph, theirs | {"adjacency": wrong})
    assert result.max_edge_difference == pytest.approx(1e-3, rel=0.05)


def test_comparison_sees_other_scores_and_another_pruned_set():
    graph, theirs = traced(FILES[0])
    edge_mask = theirs["edge_mask"].copy()
    edge_mask[tuple(np.argwhere(edge_mask)[0])] = False
    changed = {"scores": theirs["scores"] + 1e-3, "edge_mask": edge_mask}
    result = compare_judgement(graph, theirs | changed)
    assert result.score_difference == pytest.approx(1e-3, rel=0.01)
    assert (result.differing_nodes, result.differing_edges) == (0, 1)


def test_comparison_sees_a_missing_feature():
    graph, theirs = traced(FILES[0])
    fewer = theirs["selected_features"][1:]
    without = theirs["adjacency"][1:, 1:]
    result = compare(graph, theirs | {"selected_features": fewer, "adjacency": without})
    assert (result.differing_features, result.shared_features) == (1, len(fewer))
    assert result.max_edge_difference <= TOLERANCE
