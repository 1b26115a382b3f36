"""A tiny model reading a text of words, live and through caches."""

from pathlib import Path
from typing import Any

from pellucid.core.types import Site
from pellucid.harvest.cache.cache import ActivationCache
from pellucid.harvest.cache.writing import write_cache
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.stream import ActivationStream
from pellucid.harvest.text import TextList, TextSource
from pellucid.models.load import load_model
from support.tiny_models import tiny_model, word_tokenizer
from support.word_text import word_documents

TOKENIZER = word_tokenizer()
MODEL = load_model(tiny_model("llama", tokenizer=TOKENIZER), TOKENIZER)
TEXT = TextList(word_documents(200, longest=60))  # about 6,000 tokens
SITES = [Site("mlp_in", 0), Site("mlp_out", 0), Site("resid_post", 1)]
SHARD_BYTES = 1
"""A shard a block."""


class SmallBlocks(LiveActivations):
    """Live activations in blocks of 512 tokens, so that little text makes many."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._block_tokens = 512


def live(text: TextSource = TEXT, **settings: Any) -> LiveActivations:
    config = HarvestConfig(**{"context_length": 32} | settings)
    return SmallBlocks(MODEL, text, SITES, config)


def cached(folder: Path, *, tokens: int = 4_000, **options: Any) -> ActivationCache:
    source = options.pop("source", None) or live(**options.pop("settings", {}))
    return write_cache(source, folder, tokens=tokens, **{"shard_bytes": SHARD_BYTES} | options)


def stream_of(source: Any, **options: Any) -> ActivationStream:
    return ActivationStream(source, **{"batch_tokens": 64, "fill_batches": 11, "seed": 3} | options)
