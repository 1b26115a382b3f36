"""Bounds of the whole graph's scores hold at every cap and meet when there is none."""

import numpy as np
import pytest

from pellucid.attribution.trace import trace
from pellucid.models.load import load_model
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]
SCORES = ("replacement", "completeness")


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_bounds_hold_the_whole_graphs_scores_and_close_in_on_them(family):
    model = load_model(tiny_model(family), word_tokenizer())
    dictionaries = tiny_transcoders(model, features=40)
    whole = trace(model, PROMPT, dictionaries, causal=False).scores
    widths = {name: [] for name in SCORES}
    for cap in (1, 3, 8, 20, 1000):
        scores = trace(model, PROMPT, dictionaries, max_features=cap, causal=False).scores
        for name in SCORES:
            low, high = scores[f"{name}_low"], scores[f"{name}_high"]
            assert low - 1e-6 <= whole[name] <= high + 1e-6
            assert 0 <= low <= high <= 1
            widths[name].append(high - low)
    for name in SCORES:
        assert (np.diff(widths[name]) <= 1e-9).all()
        assert widths[name][0] > 0.05
        assert widths[name][-1] == pytest.approx(0, abs=1e-9)
        assert whole[f"{name}_low"] == pytest.approx(whole[name], abs=1e-5)


def test_the_bounds_of_replacement_differ_by_the_unexplored_influence():
    model = load_model(tiny_model("llama"), word_tokenizer())
    graph = trace(model, PROMPT, tiny_transcoders(model), max_features=4, causal=False)
    width = graph.scores["replacement_high"] - graph.scores["replacement_low"]
    assert width == pytest.approx(graph.metadata["unexplored_influence"], rel=1e-4)
