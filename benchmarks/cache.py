"""What a cache of activations costs in space, time and quality, by what it stores.

Rates: the specimen's activations at the sites of four transcoders, harvested live, stored, and read
in both orders. Quality: transcoders of one layer, trained from a cache of each dtype with several
seeds (which draw the same caches), and their FVU on held-out text, harvested live. One thread. From
the repository's root:

    python -m benchmarks.cache
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import pellucid
from benchmarks.measure import hardware, measure, versions
from pellucid.core.files import write_text
from pellucid.core.types import Site
from pellucid.harvest.activations import ActivationSource, Block
from pellucid.harvest.cache.cache import open_cache
from pellucid.harvest.cache.reading import CachedActivations, ShuffledActivations
from pellucid.harvest.cache.space import bytes_a_token
from pellucid.harvest.cache.storage import STORAGE
from pellucid.harvest.cache.writing import write_cache
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.sources import open_text
from pellucid.harvest.stream import ActivationStream

RESULTS = Path(__file__).parent / "results" / "cache.json"
SITES = [Site(kind, layer) for layer in range(4) for kind in ("mlp_in", "mlp_out")]
LAYER = 1
BATCH_TOKENS, FILL_BATCHES = 2048, 8
Record = dict[str, Any]


class Replayed(LiveActivations):
    """Blocks harvested before: what is left to measure is storing them."""

    replay: list[Block]

    def next_block(self) -> Block:
        self.rows.take(self._block_tokens)  # so that the place in the text moves on
        return self.replay.pop(0)


def live(cls: type[LiveActivations] = LiveActivations) -> LiveActivations:
    model = pellucid.load_model("specimen")
    text = open_text("specimen").split("train")
    return cls(model, text, SITES, HarvestConfig(context_length=256))


def blocks(source: ActivationSource, tokens: int) -> Iterator[Block]:
    """Blocks until they hold so many tokens."""
    while tokens > 0:
        block = source.next_block()
        yield block
        tokens -= len(block.tokens)


def rate(work: Callable[[], int]) -> Record:
    """Tokens a processor second and a second of the clock, and memory."""
    tokens, cost = measure(work)
    return {
        "tokens": tokens,
        "tokens_a_cpu_s": tokens / cost.cpu_s,
        "tokens_a_s": tokens / cost.wall_s,
        **asdict(cost),
    }


def drained(source: ActivationSource, tokens: int) -> int:
    """Read so many tokens as training does: through the buffer, in shuffled batches."""
    stream = ActivationStream(source, batch_tokens=BATCH_TOKENS, fill_batches=FILL_BATCHES)
    batches = tokens // BATCH_TOKENS
    return sum(len(batch.tokens) for batch in islice(stream, batches))


def rates(folder: Path, tokens: int) -> Record:
    """Harvesting live, and for every dtype storing, verifying and reading."""
    source = live()
    kept = list(blocks(source, tokens))
    return {
        "live": rate(lambda: drained(live(), tokens)),
        "stored": {dtype: stored(folder / dtype, dtype, kept, tokens) for dtype in STORAGE},
    }


def stored(folder: Path, dtype: str, kept: list[Block], tokens: int) -> Record:
    """Rates of one dtype."""
    source = live(Replayed)
    source.replay = list(kept)
    written = rate(lambda: write_cache(source, folder, tokens=tokens, dtype=dtype).tokens)
    verified = rate(lambda: open_cache(folder).tokens)
    cache = open_cache(folder)
    text = CachedActivations(cache, SITES, name="specimen")
    shuffled = ShuffledActivations(cache, SITES, name="specimen", tokens=tokens, seed=0)
    return {
        "bytes_a_token": bytes_a_token(source.widths.values(), dtype),
        "write": written,
        "verify": verified,
        "read": rate(lambda: drained(text, tokens)),
        "read_shuffled": rate(lambda: drained(shuffled, tokens)),
    }


def quality(folder: Path, tokens: int, seeds: int) -> Record:
    """FVU of one layer's transcoder by what its cache stored, a number a seed."""
    model = pellucid.load_model("specimen")
    text = open_text("specimen")
    return {
        dtype: [
            pellucid.train(
                model,
                text,
                folder / f"{dtype}-{seed}",
                tokens=tokens,
                layers=[LAYER],
                num_features=1536,
                k=12,
                batch_tokens=BATCH_TOKENS,
                seed=seed,
                cache=folder / f"cache-{dtype}",
                cache_dtype=dtype,
            )
            .layers[0]
            .fvu
            for seed in range(seeds)
        ]
        for dtype in STORAGE
    }


def shown(result: Record) -> Iterator[str]:
    """The results in lines."""
    yield f"live {result['rates']['live']['tokens_a_cpu_s']:,.0f} tokens a CPU second"
    for dtype, row in result["rates"]["stored"].items():
        figures = result["fvu"][dtype]
        exact = fmean(result["fvu"]["float32"])
        yield (
            f"{dtype}: {row['bytes_a_token']} B a token, "
            + ", ".join(
                f"{name} {row[name]['tokens_a_cpu_s']:,.0f}"
                for name in ("write", "verify", "read", "read_shuffled")
            )
            + f", FVU {fmean(figures):.5f} ({fmean(figures) - exact:+.5f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate-tokens", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "rates": rates(Path(folder), arguments.rate_tokens),
            "fvu": quality(Path(folder), arguments.tokens, arguments.seeds),
            "layer": LAYER,
            "train_tokens": arguments.tokens,
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": hardware(),
            "versions": versions(["torch", "safetensors", "transformers"]),
        }
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    print("\n".join(shown(result)))


if __name__ == "__main__":
    main()
