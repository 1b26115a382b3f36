"""The activation stream: the right values, nothing special, resumable at every batch."""

from collections import Counter
from itertools import cycle, islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import ConfigError, DataError, SiteError
from pellucid.core.types import ModuleSite, Site
from pellucid.harvest.activations import ActivationBatch
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.live import LiveActivations, _within_norm, site_widths
from pellucid.harvest.stream import ActivationStream, further, tokens_to_shuffle
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from support.tiny_models import tiny_model, word_tokenizer
from support.word_text import word_documents

TOKENIZER = word_tokenizer()
MODEL = load_model(tiny_model("llama", tokenizer=TOKENIZER), TOKENIZER)
DOCUMENTS = word_documents(40, longest=30)
SITES = [Site("mlp_in", 0), Site("mlp_out", 0), Site("resid_post", 1)]


def stream_of(documents: list[str] = DOCUMENTS, **options) -> ActivationStream:
    options = {"batch_tokens": 32, "fill_batches": 6, "seed": 5} | options
    sizes = {name: options.pop(name) for name in ("batch_tokens", "fill_batches", "seed")}
    return ActivationStream(live(documents, **options), **sizes)


def live(documents: list[str] = DOCUMENTS, **settings) -> LiveActivations:
    config = HarvestConfig(**{"context_length": 20} | settings)
    return LiveActivations(MODEL, TextList(documents), SITES, config)


def same(a: ActivationBatch, b: ActivationBatch) -> bool:
    return a.tokens.equal(b.tokens) and all(a.values[s].equal(b.values[s]) for s in SITES)


def test_every_value_is_the_models_own_on_the_row_alone() -> None:
    documents = ["w4 w5 w6 w7", "w8 w9", "w10 w11 w12"]
    expected = {}
    for text in documents:
        ids = MODEL.encode(text)
        values = MODEL.activations(ids[None], SITES)
        expected |= {int(t): [values[s][0, i] for s in SITES] for i, t in enumerate(ids)}
    seen = set()
    for batch in islice(stream_of(documents, batch_tokens=4, fill_batches=2), 4):
        for row, token in enumerate(batch.tokens.tolist()):
            seen.add(token)
            for site, value in zip(SITES, expected[token], strict=True):
                torch.testing.assert_close(batch.values[site][row], value, rtol=1e-5, atol=1e-5)
    assert seen == set(expected) - {TOKENIZER.bos_token_id}


@pytest.mark.parametrize("fill", [7, 61, 500])
def test_fill_after_fill_gives_the_text_with_no_token_lost_or_special(fill: int) -> None:
    text = [token for document in DOCUMENTS for token in TOKENIZER.encode(document)]
    endless = cycle(text)
    stream = stream_of(batch_tokens=fill, fill_batches=1)
    for _ in range(len(text) // fill + 2):
        assert Counter(next(stream).tokens.tolist()) == Counter(islice(endless, fill))
    assert not set(text) & set(TOKENIZER.all_special_ids)


def test_special_tokens_in_the_text_are_left_out() -> None:
    batch = next(stream_of(["w4 <eos> w5 <pad> w6 <bos> w7"], batch_tokens=4, fill_batches=1))
    assert sorted(batch.tokens.tolist()) == TOKENIZER.convert_tokens_to_ids(
        ["w4", "w5", "w6", "w7"]
    )


@settings(max_examples=12, deadline=None)
@given(offset=st.integers(0, 40), fill=st.sampled_from([1, 3, 11]))
def test_resuming_at_any_batch_is_bit_exact(offset: int, fill: int) -> None:
    stream, again = stream_of(fill_batches=fill), stream_of(fill_batches=fill)
    for _ in range(offset):
        next(stream)
    again.load_state_dict(stream.state_dict())
    assert again.state_dict() == stream.state_dict()
    for left, right in islice(zip(stream, again, strict=False), 15):
        assert same(left, right)


def test_the_seed_decides_the_order() -> None:
    assert same(next(stream_of()), next(stream_of()))
    assert not same(next(stream_of()), next(stream_of(seed=6)))


def test_a_fill_is_shuffled_across_documents() -> None:
    documents = [" ".join([f"w{4 + number}"] * 10) for number in range(20)]
    batch = next(stream_of(documents, batch_tokens=50, fill_batches=4))
    assert len(batch.tokens.unique()) > 12


def test_bfloat16_forward_gives_float32_near_the_exact_values() -> None:
    exact, reduced = live().next_block(), live(forward_precision="bfloat16").next_block()
    for site in SITES:
        assert reduced.values[site].dtype == torch.float32
        error = (reduced.values[site] - exact.values[site]).norm() / exact.values[site].norm()
        assert 0 < error < 0.02


def test_widths_and_buffer_sizes() -> None:
    wide = ModuleSite("model.layers.0.mlp.down_proj", "input")
    assert site_widths(MODEL, [SITES[0], wide]) == {SITES[0]: 32, wide: 48}
    assert tokens_to_shuffle([768] * 24) == (1 << 29) // (4 * 768 * 24)
    assert tokens_to_shuffle([8]) == 1 << 17


def test_bad_sites_and_sizes_are_refused() -> None:
    with pytest.raises(SiteError, match="9"):
        site_widths(MODEL, [Site("mlp_in", 9)])
    with pytest.raises(ConfigError, match="batch_tokens is 0"):
        stream_of(batch_tokens=0)


# Which tokens are left out


def test_tokens_of_high_norm_are_left_out_and_counted() -> None:
    whole = live().next_block()
    multiple = 1.25
    kept = torch.ones(len(whole.tokens), dtype=torch.bool)
    for site in SITES:
        norms = whole.values[site].square().sum(dim=1).sqrt()
        kept &= norms <= multiple * norms.median()
    block = live(exclude_high_norm=multiple).next_block()
    assert 0 < block.excluded == int((~kept).sum()) < len(kept) / 2
    assert block.tokens.equal(whole.tokens[kept])
    assert all(block.values[site].equal(whole.values[site][kept]) for site in SITES)


def test_the_stream_keeps_its_batches_full_and_counts_what_was_left_out() -> None:
    source = live(exclude_high_norm=1.25)
    a_reading = source.next_block().excluded
    stream = ActivationStream(
        live(exclude_high_norm=1.25), batch_tokens=len(source.next_block().tokens), fill_batches=1
    )
    for reading in range(1, 4):
        next(stream)
        assert stream.excluded == reading * a_reading
    resumed = ActivationStream(
        live(exclude_high_norm=1.25), batch_tokens=len(source.next_block().tokens), fill_batches=1
    )
    resumed.load_state_dict(stream.state_dict())
    next(resumed)
    assert resumed.excluded == 4 * a_reading


def test_streams_of_another_number_go_on_with_the_count_of_all() -> None:
    begun = [stream_of(exclude_high_norm=1.25) for _ in range(2)]
    for stream in begun:
        for _ in range(2 * 6 * 10):
            next(stream)
    together = sum(stream.state_dict()["excluded"] for stream in begun)
    resumed = [stream_of(exclude_high_norm=1.25) for _ in range(3)]
    for rank, stream in enumerate(resumed):
        stream.load_state_dict(further([each.state_dict() for each in begun], rank))
    assert [stream.excluded for stream in resumed] == [together, 0, 0] != [0, 0, 0]


def test_a_multiple_that_leaves_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = live(exclude_high_norm=2)
    nothing = torch.zeros(1, dtype=torch.bool)
    monkeypatch.setattr(
        "pellucid.harvest.live._within_norm",
        lambda values, multiple: nothing.expand(len(values[SITES[0]])),
    )
    with pytest.raises(DataError, match="exclude_high_norm 2 leaves no token"):
        source.next_block()


def test_values_that_are_not_numbers_are_left_for_training_to_refuse() -> None:
    values = {SITES[0]: torch.tensor([[1.0], [float("nan")], [2.0], [1.0]])}
    assert _within_norm(values, 10.0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exclude_high_norm": 1}, "exclude_high_norm is 1; give a multiple of the median norm"),
        ({"packing": "tight"}, "unknown packing 'tight'; use one of documents, packed"),
        ({"forward_precision": "float8"}, "unknown forward precision 'float8'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        live(**settings)
