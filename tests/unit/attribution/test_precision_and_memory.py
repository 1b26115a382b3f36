"""Rows in bfloat16 with those that matter computed again, and traces within a memory budget."""

import numpy as np
import pytest
import torch

from pellucid.attribution.memory import MemoryBudget, parse_bytes, resident_bytes
from pellucid.attribution.trace import Trace, trace
from pellucid.core.errors import ConfigError
from pellucid.dictionaries.checkpoint import load_dictionaries, save_dictionaries
from pellucid.graphs.prune import surviving
from pellucid.graphs.tables import FEATURE, LOGIT
from pellucid.models.load import load_model
from support.tiny_dictionaries import relu, tiny_basis, tiny_set
from support.tiny_models import tiny_model, word_tokenizer

IDS = [11, 42, 7, 42, 30, 18, 9, 25, 31]


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), word_tokenizer())


@pytest.mark.parametrize("basis", ["skip", "clt", "sae", "mixed"])
def test_rows_that_matter_are_exact_in_bfloat16_and_the_others_nearly(llama, basis):
    dictionaries, missing = tiny_basis(llama, basis, relu())
    exact = Trace(llama, IDS, dictionaries, missing=missing).graph()
    rough = Trace(llama, IDS, dictionaries, missing=missing, precision="bfloat16").graph()
    record = rough.metadata["precision"]
    assert 0 < record["largest_error"] < 0.05
    np.testing.assert_array_equal(exact.nodes.index, rough.nodes.index)
    kept, _ = surviving(exact, 0.5, 0.98)  # well inside what is computed again
    kept &= exact.nodes.is_kind(FEATURE, LOGIT)
    again, _ = surviving(rough, 0.8, 0.98)
    assert record["rows_computed_again"] >= (again & rough.nodes.is_kind(FEATURE)).sum() * 0.8
    for node in np.flatnonzero(kept):
        mine, theirs = (g.edges.select(g.edges.target == node) for g in (rough, exact))
        dense = np.zeros((2, len(exact.nodes)))
        dense[0, mine.source], dense[1, theirs.source] = mine.weight, theirs.weight
        np.testing.assert_allclose(*dense, atol=1e-5 * np.abs(dense).max())


def test_a_budget_changes_chunks_and_not_the_graph(llama, monkeypatch):
    dictionaries = tiny_set(llama, ["clt"] * llama.n_layers, relu())
    free = Trace(llama, IDS, dictionaries)
    expected = free.graph()
    monkeypatch.setattr("pellucid.attribution.memory.SMALLEST_CHUNK", 7)
    monkeypatch.setattr("pellucid.attribution.memory.CHUNK_SHARE", 1e9)
    tight = Trace(llama, IDS, dictionaries, max_memory=resident_bytes() + (256 << 20))
    assert tight.linear.attended is None
    assert not any(block.crossed and block.crossed.keep for block in tight.linear.blocks)
    np.testing.assert_allclose(tight.graph().edges.weight, expected.edges.weight, atol=1e-6)
    assert len(tight.rows.blocks) > len(free.rows.blocks)


@pytest.fixture
def held(monkeypatch):
    """A process that always holds 100 MiB."""
    monkeypatch.setattr("pellucid.attribution.memory.resident_bytes", lambda: 100 << 20)
    return 100 << 20


def test_chunks_shrink_with_the_memory_that_is_left(held):
    assert MemoryBudget().chunk_tokens(512) == 1024
    tight = MemoryBudget(held + (8 << 20))
    assert tight.chunk_tokens(512) < 1024
    assert not tight.can_keep(8 << 20)
    assert MemoryBudget(1).chunk_tokens(512) == 64, "too little is refused elsewhere"


def test_what_does_not_fit_is_refused_before_it_is_computed(llama, held):
    dictionaries = tiny_set(llama, ["plt"] * llama.n_layers, relu())
    with pytest.raises(ConfigError, match=r"max_memory is 0 MiB.*a prompt of 10 tokens"):
        Trace(llama, IDS, dictionaries, max_memory=1000)
    whole = Trace(llama, IDS, dictionaries)
    whole.rows.budget.limit = held + 20_000
    with pytest.raises(ConfigError, match="lower max_features to"):
        whole.graph()
    with pytest.raises(ConfigError, match="max_memory is -1"):
        Trace(llama, IDS, dictionaries, max_memory=-1)
    with pytest.raises(ConfigError, match="precision is 'int4'"):
        trace(llama, IDS, dictionaries, precision="int4")


@pytest.mark.parametrize(
    ("text", "amount"),
    [("8GiB", 8 << 30), ("500MB", 500_000_000), ("2e9", 2_000_000_000), ("1.5 kib", 1536)],
)
def test_amounts_of_memory_are_read(text, amount):
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "much", "8 XB", "1.2.3GB", "-5MB"])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(ConfigError, match="is not an amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize("basis", ["skip", "clt", "sae"])
@pytest.mark.parametrize("store", [torch.float32, torch.float16])
def test_dictionaries_left_in_their_files_give_the_same_graph(llama, tmp_path, basis, store):
    dictionaries, _ = tiny_basis(llama, basis, relu())
    save_dictionaries(tmp_path / "set", dictionaries.dictionaries, dtype=store)
    loaded = trace(llama, IDS, load_dictionaries(tmp_path / "set"), causal=False)
    lazy = load_dictionaries(tmp_path / "set", lazy=True)
    assert lazy[0].W_dec.dtype == store
    mapped = trace(llama, IDS, lazy, causal=False)
    np.testing.assert_array_equal(loaded.nodes.index, mapped.nodes.index)
    np.testing.assert_allclose(loaded.edges.weight, mapped.edges.weight, rtol=1e-3, atol=1e-5)
    with pytest.raises(ConfigError, match="stay in their files"):
        load_dictionaries(tmp_path / "set", lazy=True, device="meta")
