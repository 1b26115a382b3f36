"""The counts behind the arithmetic floor, against counts made another way."""

from collections import Counter

import pytest
import torch

from benchmarks.growth import fit
from benchmarks.models import BenchmarkSize
from benchmarks.work import Product, ProductRecorder, necessary
from pellucid.attribution.trace import trace
from pellucid.graphs.tables import FEATURE, LOGIT
from pellucid.models.load import load_model
from pellucid.replacement.model import ReplacementModel
from support.tiny_dictionaries import relu, tiny_transcoders
from support.tiny_models import tiny_model, word_tokenizer


def test_recorder_sees_every_kind_of_product():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    batch, other = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    with torch.no_grad(), ProductRecorder() as recorder:
        a @ b
        torch.mm(a, b, out=torch.empty(3, 5))
        torch.zeros(3, 5).addmm_(a, b)
        torch.nn.functional.linear(a, b.T, torch.zeros(5))
        batch @ other
        torch.zeros(2, 3, 5).baddbmm_(batch, other)
    assert recorder.products == Counter({Product(0, 3, 4, 5): 4, Product(2, 3, 4, 5): 2})


def test_multiply_adds_of_a_product():
    assert Product(0, 2, 3, 5).multiply_adds == 30
    assert Product(7, 2, 3, 5).multiply_adds == 210


def test_necessary_work_is_that_of_a_loop_over_cones_and_less_than_what_is_done():
    tokenizer = word_tokenizer()
    settings = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    model = load_model(tiny_model("qwen3", tokenizer=tokenizer, **settings), tokenizer)
    dictionaries = tiny_transcoders(model, activation=relu())
    ids = [1, 9, 8, 7, 30, 12]
    with ProductRecorder() as recorder:
        graph = trace(model, ids, dictionaries, max_features=10**6, causal=False)
    local = ReplacementModel(model, dictionaries).local(torch.tensor(ids))
    size = BenchmarkSize(layers=model.n_layers, d_model=model.d_model)
    must = necessary(graph, local, size)
    assert must == counted(graph, local, model.d_model, model.n_layers)
    done = sum(kind.multiply_adds * count for kind, count in recorder.products.items())
    assert 0 < must < done


def counted(graph, local, d: int, n_layers: int) -> int:
    """The same count, position by position."""
    nodes, total = graph.nodes, 0

    def written(layer: int, position: int) -> int:
        return int((local.layers[layer].active.positions == position).sum()) + 2

    for node in range(len(nodes)):
        if nodes.kind[node] not in (FEATURE, LOGIT):
            continue
        layer, last = int(nodes.layer[node]), int(nodes.position[node])
        seen = range(last + 1)
        images = sum((query + 2) * d for query in seen)
        through = sum(2 * d * d + (query + 1) * d for query in seen)
        if nodes.kind[node] == LOGIT:
            layer -= 1
            total += written(layer, last) * d
        single = 2 * d * d + (last + 1) * d
        total += min(single, images) if layer == 0 else single
        for below in range(layer):
            total += sum(written(below, position) for position in seen) * d
            total += min(through, images) if below == 0 else through
        total += 2 * (last + 1) * d
    assert n_layers == len(local.layers)
    return total


def test_fit_recovers_a_power_and_says_how_sure_it_is():
    exact = fit([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0])
    assert exact.slope == pytest.approx(2)
    assert exact.low == pytest.approx(2)
    noisy = fit([1, 2, 4, 8], [3.0, 14.0, 40.0, 192.0])
    assert noisy.low < 2 < noisy.high
