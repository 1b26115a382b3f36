"""A padded batch, however its rows are padded, gives each row the logits that it has alone."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_models import VOCAB_SIZE, tiny_model

WIDTH = 9


@cache
def model_of(family: str) -> LanguageModel:
    return load_model(tiny_model(family))


@st.composite
def rows(draw: st.DrawFn) -> tuple[int, list[int]]:
    """How much padding comes before a row, and the row."""
    length = draw(st.integers(1, WIDTH))
    before = draw(st.integers(0, WIDTH - length))
    ids = draw(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=length, max_size=length))
    return before, ids


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma3", "phi3"])
@settings(max_examples=15, deadline=None)
@given(batch=st.lists(rows(), min_size=1, max_size=3))
def test_padding_changes_nothing(family: str, batch: list[tuple[int, list[int]]]) -> None:
    model = model_of(family)
    ids = torch.zeros(len(batch), WIDTH, dtype=torch.long)
    mask = torch.zeros(len(batch), WIDTH, dtype=torch.bool)
    for row, (before, tokens) in enumerate(batch):
        place = slice(before, before + len(tokens))
        ids[row, place] = torch.tensor(tokens)
        mask[row, place] = True

    logits = model.logits(ids, mask)

    for row, (_, tokens) in enumerate(batch):
        alone = model.logits(torch.tensor([tokens]))[0]
        torch.testing.assert_close(logits[row, mask[row]], alone, rtol=1e-4, atol=1e-4)
