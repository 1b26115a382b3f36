"""Rows: nothing lost, nothing added but the frame, any position found again."""

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, BertTokenizerFast

from pellucid.core.errors import ConfigError, DataError
from pellucid.harvest.rows import Row, TextPosition, TokenRows, padded_batches, row_frame
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_models import CONTEXT_LENGTH, tiny_model, word_tokenizer
from support.word_text import word_documents

TOKENIZER = word_tokenizer()
MODEL = load_model(tiny_model("llama", tokenizer=TOKENIZER), TOKENIZER)
BOS = TOKENIZER.bos_token_id
DOCUMENTS = word_documents(70)


def rows_of(documents: list[str], *, length: int = 16) -> TokenRows:
    return TokenRows(TextList(documents), MODEL, length=length)


@pytest.mark.parametrize("length", [2, 7, 16, CONTEXT_LENGTH])
def test_rows_hold_every_token_once_and_in_order(length: int) -> None:
    expected = [token for text in DOCUMENTS for token in TOKENIZER.encode(text)]
    rows, taken = rows_of(DOCUMENTS, length=length), []
    while rows.position.reading == 0 and rows.position.document < len(DOCUMENTS):
        ids, text = next(rows)
        assert ids[0] == BOS and len(ids) <= length
        assert text == list(range(1, len(ids)))
        taken += ids[1:]
        if len(taken) == len(expected):
            break
    assert taken == expected


def test_a_row_never_joins_two_documents() -> None:
    rows = rows_of(["w4 w5 w6", "", "w7 w8"], length=8)
    words = TOKENIZER.convert_tokens_to_ids
    assert [row.ids for row in islice(rows, 3)] == [
        [BOS, *words(["w4", "w5", "w6"])],
        [BOS, *words(["w7", "w8"])],
        [BOS, *words(["w4", "w5", "w6"])],
    ]
    assert rows.position == TextPosition(reading=1, document=1, token=0)
    assert rows.tokens_a_reading == 5


@settings(max_examples=15, deadline=None)
@given(taken=st.integers(0, 400), length=st.integers(2, 48))
def test_any_position_is_found_again(taken: int, length: int) -> None:
    rows = rows_of(DOCUMENTS, length=length)
    for _ in range(taken):
        next(rows)
    again = rows_of(DOCUMENTS, length=length)
    again.position = TextPosition(**rows.position.to_json())
    assert list(islice(again, 30)) == list(islice(rows, 30))
    assert again.position == rows.position


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=40), budget=st.integers(1, 90))
def test_padding_adds_nothing_to_any_row(lengths: list[int], budget: int) -> None:
    rows = [
        Row([number + 1] * length, list(range(number % 3, length, 2)))
        for number, length in enumerate(lengths)
    ]
    seen = []
    for batch in padded_batches(rows, max_tokens=budget):
        assert batch.ids.numel() <= budget or len(batch.ids) == 1
        assert batch.mask.any(dim=0).all()
        assert not batch.ids[~batch.mask].any()
        for ids, mask, text in zip(*batch, strict=True):
            assert mask.sort(descending=True).values.equal(mask)
            seen.append(Row(ids[mask].tolist(), text.nonzero().flatten().tolist()))
    assert sorted(seen) == sorted(rows)


def encoder() -> LanguageModel:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    tokenizer = BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
    )
    torch.manual_seed(0)
    return load_model(BertModel(config), tokenizer)


def test_an_encoder_gets_the_frame_its_tokenizer_makes() -> None:
    model = encoder()
    assert row_frame(model) == ((2,), (3,))
    rows = TokenRows(TextList(["a b c a"]), model, length=5)
    assert list(islice(rows, 2)) == [([2, 5, 6, 7, 3], [1, 2, 3]), ([2, 5, 3], [1])]


@pytest.mark.parametrize("documents", [["", "  \n "], ["<bos> <eos>"], ["nothing known here"]])
def test_text_without_a_usable_token_is_refused_at_once(documents: list[str]) -> None:
    with pytest.raises(DataError, match="no usable token"):
        rows_of(documents)


def test_a_foreign_tokenizer_is_refused_at_once() -> None:
    larger = word_tokenizer(200)
    model = load_model(tiny_model("llama", tokenizer=TOKENIZER), larger)
    with pytest.raises(DataError, match=r"token id 150 .* vocabulary of 67"):
        TokenRows(TextList(["w4 w150"]), model, length=8)


@pytest.mark.parametrize("length", [1, CONTEXT_LENGTH + 1])
def test_a_length_that_does_not_fit_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=f"rows of {length} tokens do not fit"):
        rows_of(DOCUMENTS, length=length)


def test_a_model_without_tokenizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="no tokenizer"):
        TokenRows(TextList(["w4"]), load_model(tiny_model("llama")), length=8)


# Packed rows


def packed(documents: list[str], *, length: int) -> TokenRows:
    return TokenRows(TextList(documents), MODEL, length=length, packing="packed")


def test_packed_rows_open_and_close_every_document() -> None:
    eos = TOKENIZER.eos_token_id
    w = TOKENIZER.convert_tokens_to_ids(["w4", "w5", "w6", "w7", "w8", "w9"])
    rows = packed(["w4 w5", "", "w6 w7 w8", "w9"], length=6)
    assert [next(rows) for _ in range(3)] == [
        Row([BOS, w[0], w[1], eos, BOS, w[2]], [1, 2, 5]),
        Row([BOS, w[3], w[4], eos, BOS, w[5]], [1, 2, 5]),
        Row([BOS, w[0], w[1], eos, BOS, w[2]], [1, 2, 5]),
    ]
    assert rows.tokens_a_reading == 6


@pytest.mark.parametrize("length", [3, 7, 16, CONTEXT_LENGTH])
def test_packed_rows_are_full_and_lose_no_token(length: int) -> None:
    expected = [token for text in DOCUMENTS for token in TOKENIZER.encode(text)]
    rows = packed(DOCUMENTS, length=length).take(len(expected) + 1)
    assert [row.ids[place] for row in rows for place in row.text] == expected
    assert all(len(row.ids) >= length - 1 and row.ids[0] == BOS for row in rows[:-1])
    assert all(len(row.ids) <= length for row in rows)


@settings(max_examples=15, deadline=None)
@given(taken=st.integers(0, 300), length=st.integers(3, 48))
def test_any_packed_position_is_found_again(taken: int, length: int) -> None:
    rows, again = packed(DOCUMENTS, length=length), packed(DOCUMENTS, length=length)
    for _ in range(taken):
        next(rows)
    again.position = rows.position
    assert list(islice(again, 30)) == list(islice(rows, 30))


def test_rows_are_taken_up_to_the_end_of_the_text() -> None:
    rows = rows_of(["w4 w5 w6", "w7 w8"], length=8)
    assert [len(rows.take(tokens)) for tokens in (1, 3, 9, 5, 1)] == [1, 1, 2, 2, 1]
    assert rows.position == TextPosition(reading=3, document=1, token=0)


def test_an_end_without_text_is_passed_over() -> None:
    rows = rows_of(["w4 w5", "<eos>"], length=8)
    assert len(rows.take(2)) == 1
    assert [row.text for row in rows.take(2)] == [[1, 2]]
    assert rows.position == TextPosition(reading=1, document=1, token=0)


def test_an_encoder_has_no_packed_rows() -> None:
    with pytest.raises(ConfigError, match="packed rows are for decoders of a known family"):
        TokenRows(TextList(["a b"]), encoder(), length=8, packing="packed")


def test_rows_of_like_length_share_a_pass() -> None:
    rows = [Row([1] * length, []) for length in [3] * 100 + [200] * 4]
    assert [tuple(batch.ids.shape) for batch in padded_batches(rows, max_tokens=2048)] == [
        (100, 3),
        (4, 200),
    ]
