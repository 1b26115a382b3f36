"""A tiny model with words of its own."""

import pytest

from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_models import tiny_model, word_tokenizer


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    """Three layers, width 32, words w4 to w66."""
    tokenizer = word_tokenizer()
    return load_model(tiny_model("llama", tokenizer=tokenizer), tokenizer)
