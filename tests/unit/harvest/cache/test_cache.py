"""A cache gives what live harvesting gives, is completed where it stopped, hides no damage."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections import Counter, namedtuple
from itertools import islice
from pathlib import Path
from threading import Thread

import pytest
import torch

from pellucid.core.errors import CheckpointError, ConfigError, DataError, StorageError
from pellucid.core.types import Site
from pellucid.harvest.activations import Block
from pellucid.harvest.cache.cache import ActivationCache, open_cache
from pellucid.harvest.cache.reading import CachedActivations, ShuffledActivations
from pellucid.harvest.cache.space import bytes_a_token
from pellucid.harvest.cache.storage import STORAGE
from pellucid.harvest.cache.use import through_cache
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from support.cached import MODEL, SITES, TEXT, TOKENIZER, cached, live, stream_of
from support.tiny_models import tiny_model
from support.word_text import word_documents


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ActivationCache:
    return cached(tmp_path_factory.mktemp("cache"))


def read(cache: ActivationCache) -> CachedActivations:
    return CachedActivations(cache, SITES, name=TEXT.name)


def same(left: Block, right: Block) -> bool:
    return (
        left.tokens.equal(right.tokens)
        and left.excluded == right.excluded
        and all(left.values[site].equal(right.values[site]) for site in SITES)
    )


SETTINGS = [{}, {"packing": "packed"}, {"exclude_high_norm": 1.2}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_cached_blocks_and_states_are_the_live_ones_reading_after_reading(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    """Past the end of the text too, and for tokens that a policy excludes."""
    text = TextList(word_documents(60, longest=60))
    now = live(text, **settings)
    cache = cached(tmp_path, tokens=10_000, settings={"text": text} | settings)
    assert cache.ended and cache.tokens < 3_000
    stored = read(cache)
    assert stored.settings() == now.settings()
    for _ in range(3 * len(stored._blocks) + 1):
        assert stored.state_dict() == now.state_dict()
        assert same(stored.next_block(), now.next_block())
    assert stored.state_dict()["reading"] == 3
    assert stored.tokens_a_reading == now.tokens_a_reading


def test_a_stream_goes_on_from_the_cache_as_from_the_model(whole: ActivationCache) -> None:
    now, stored = stream_of(live()), stream_of(read(whole))
    for _ in range(17):
        next(now)
    stored.load_state_dict(now.state_dict())
    for left, right in islice(zip(now, stored, strict=False), 30):
        assert left.tokens.equal(right.tokens)
        assert all(left.values[site].equal(right.values[site]) for site in SITES)
    assert now.state_dict() == stored.state_dict()


def test_a_longer_cache_is_a_shorter_one_continued(whole: ActivationCache, tmp_path: Path) -> None:
    short = cached(tmp_path, tokens=1_000)
    assert 1_000 <= short.tokens < 1_600 and not short.ended
    reader = read(short)
    with pytest.raises(DataError, match="its text does not; make it longer"):
        for _ in range(100):
            reader.next_block()
    files = {shard.file: shard.sha256 for shard in short.shards}
    longer = cached(tmp_path)
    assert longer.shards == whole.shards
    assert files.items() <= {shard.file: shard.sha256 for shard in longer.shards}.items()


def test_a_whole_cache_is_used_without_the_model(
    whole: ActivationCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = live()
    monkeypatch.setattr(LiveActivations, "next_block", None)
    source = through_cache(now, whole.folder, tokens=4_000)
    assert source.next_block().tokens.numel() > 500


def test_shards_are_as_large_as_asked(tmp_path: Path, whole: ActivationCache) -> None:
    block = whole.shards[0].tokens * bytes_a_token([32] * 3, "float32")
    larger = cached(tmp_path, shard_bytes=block * 3 // 2)
    assert len(whole.shards) == 8 and len(larger.shards) == 4
    left, right = read(whole), read(larger)
    assert all(same(left.next_block(), right.next_block()) for _ in range(8))


# What is stored


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_casts_round(dtype: str, tolerance: float) -> None:
    rows = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    stored = STORAGE[dtype].unpack(STORAGE[dtype].pack(rows))
    assert ((stored - rows).abs() <= tolerance * rows.abs()).all()


def test_int8_is_within_half_a_step_of_its_rows_scale() -> None:
    rows = torch.randn(50, 16) * torch.logspace(-20, 20, 50)[:, None]
    rows[7] = 0
    packed = STORAGE["int8"].pack(rows)
    stored = STORAGE["int8"].unpack(packed)
    step = rows.abs().amax(dim=1, keepdim=True) / 127
    assert ((stored - rows).abs() <= step / 2 * 1.0001).all()
    assert packed[""].dtype == torch.int8 and packed[""].abs().max() == 127


@pytest.mark.parametrize("dtype", STORAGE)
def test_a_token_takes_the_bytes_that_are_estimated(tmp_path: Path, dtype: str) -> None:
    cache = cached(tmp_path, dtype=dtype, tokens=1_000, shard_bytes=1 << 20)
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    expected = cache.tokens * bytes_a_token([32] * 3, dtype)
    assert expected < size < expected + 2_000


@pytest.mark.parametrize("dtype", ["float16", "int8", "bfloat16"])
def test_values_that_cannot_be_stored_are_refused(dtype: str) -> None:
    rows = torch.tensor([[1.0, float("inf") if dtype != "float16" else 7e4]])
    with pytest.raises(DataError, match=f"cannot be stored as {dtype}; store bfloat16 or float32"):
        STORAGE[dtype].pack(rows)


# Shuffled throughout


def test_every_reading_of_a_shuffled_cache_gives_each_token_once(whole: ActivationCache) -> None:
    text = read(whole)
    blocks = [text.next_block() for _ in range(8)]
    expected = torch.cat([block.values[SITES[0]] for block in blocks])
    source = ShuffledActivations(whole, SITES, name="text", tokens=4_000, seed=0)
    orders = []
    for _ in range(2):
        found = torch.empty(0, 32)
        while len(found) < len(expected):
            found = torch.cat([found, source.next_block().values[SITES[0]]])
        assert found[:, 0].sort().values.equal(expected[:, 0].sort().values)
        orders.append(found)
    assert not orders[0].equal(orders[1])


def test_a_shuffled_reading_counts_what_was_left_out_of_its_blocks(tmp_path: Path) -> None:
    cache = cached(tmp_path, tokens=2_000, settings={"exclude_high_norm": 1.2})
    text = read(cache)
    shuffled = ShuffledActivations(cache, SITES, name="text", tokens=cache.tokens, seed=0)
    expected = sum(text.next_block().excluded for _ in text._blocks)
    assert sum(shuffled.next_block().excluded for _ in shuffled._chunks) == expected > 100


def test_a_shuffled_fill_comes_from_all_shards(whole: ActivationCache) -> None:
    text = read(whole)
    shard_of = {
        float(value): number
        for number in range(8)
        for value in text.next_block().values[SITES[0]][:, 0]
    }

    def shards_in_a_fill(source: CachedActivations | ShuffledActivations) -> int:
        fill = next(stream_of(source, batch_tokens=1_800, fill_batches=1))
        found = Counter(shard_of[float(value)] for value in fill.values[SITES[0]][:, 0])
        return sum(tokens >= 100 for tokens in found.values())

    shuffled = ShuffledActivations(whole, SITES, name="text", tokens=4_000, seed=0)
    assert shards_in_a_fill(read(whole)) == 4
    assert shards_in_a_fill(shuffled) >= 5


def test_the_shuffled_order_does_not_depend_on_how_long_the_cache_grew(
    whole: ActivationCache, tmp_path: Path
) -> None:
    short = cached(tmp_path, tokens=2_000)
    left, right = (
        ShuffledActivations(each, SITES, name="text", tokens=2_000, seed=4)
        for each in (short, whole)
    )
    assert left.settings() == right.settings()
    assert all(same(left.next_block(), right.next_block()) for _ in range(20))


# Which cache it is


def test_another_cache_is_refused_by_what_differs(whole: ActivationCache, tmp_path: Path) -> None:
    def refused(source: LiveActivations, message: str, **options: object) -> None:
        with pytest.raises(ConfigError, match=message):
            through_cache(source, whole.folder, tokens=4_000, **options)  # type: ignore[arg-type]

    other = load_model(tiny_model("llama", seed=1, tokenizer=TOKENIZER), TOKENIZER)
    config = HarvestConfig(context_length=32)
    more = [*SITES, Site("mlp_in", 1)]
    refused(type(live())(other, TEXT, SITES, config), "its model is '.*', asked for is '")
    refused(live(TextList(word_documents(9))), "its text is")
    refused(live(context_length=20), "its context_length is 32, asked for is 20")
    refused(live(packing="packed"), "its packing is 'documents', asked for is 'packed'")
    refused(live(exclude_high_norm=9), "its exclude_high_norm is None, asked for is 9")
    refused(live(forward_precision="bfloat16"), "its forward_precision is 'float32'")
    refused(type(live())(MODEL, TEXT, more, config), "its sites is .*, asked for is .*mlp_in@1")
    refused(live(), "its dtype is 'float32', asked for is 'int8'; use another", dtype="int8")
    refused(live(), "unknown cache order 'random'", order="random")
    with pytest.raises(ConfigError, match="unknown cache dtype 'int4'; use one of float32"):
        cached(tmp_path / "new", dtype="int4")
    assert not (tmp_path / "new").exists()


def test_a_cache_serves_fewer_sites_only_as_it_is(whole: ActivationCache, tmp_path: Path) -> None:
    config = HarvestConfig(context_length=32)
    fewer = LiveActivations(MODEL, TEXT, SITES[1:], config)
    block = through_cache(fewer, whole.folder, tokens=4_000).next_block()
    assert list(block.values) == SITES[1:]
    assert block.values[SITES[1]].equal(read(whole).next_block().values[SITES[1]])
    with pytest.raises(ConfigError, match="its sites is"):
        through_cache(fewer, whole.folder, tokens=5_000)


# What can go wrong


def test_a_cache_killed_at_any_moment_is_completed_byte_for_byte(tmp_path: Path) -> None:
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-m", "support.cache_process", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{root / 'src'}:{root / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    word, _, moments = done.stdout.strip().partition(" ")
    assert word == "moments" and int(moments) > 20


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << (place % 8)
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.5, 0.9, 1])
def test_a_flipped_byte_of_a_shard_is_found_and_named(
    whole: ActivationCache, tmp_path: Path, share: float
) -> None:
    folder = shutil.copytree(whole.folder, tmp_path / "copy")
    path = folder / "shard-00003.safetensors"
    flipped(path, int(share * (path.stat().st_size - 1)))
    with pytest.raises(CheckpointError, match=r"shard-00003\.safetensors is damaged"):
        through_cache(live(), folder, tokens=4_000)
    with pytest.raises(CheckpointError, match=r"shard-00003\.safetensors is damaged"):
        cached(folder, tokens=5_000)


def test_any_flipped_byte_of_the_manifest_is_found_and_named(
    whole: ActivationCache, tmp_path: Path
) -> None:
    path = tmp_path / "manifest.json"
    for place in range(0, (whole.folder / "manifest.json").stat().st_size, 13):
        shutil.copy(whole.folder / "manifest.json", path)
        flipped(path, place)
        with pytest.raises(CheckpointError, match=r"manifest\.json (is damaged|cannot be read)"):
            open_cache(tmp_path)


def test_a_missing_or_cut_shard_is_found(whole: ActivationCache, tmp_path: Path) -> None:
    folder = shutil.copytree(whole.folder, tmp_path / "copy")
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"shard-00001.* is damaged"):
        open_cache(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"shard-00001\.safetensors is missing; .* make it"):
        open_cache(folder)


def test_a_disk_that_fills_up_costs_only_the_shard_at_hand(
    whole: ActivationCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if "00002" in path.name:
            original(path, data[:99])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, data)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(StorageError, match=r"shard-00002.*No space left on device; free"):
            cached(tmp_path)
    assert open_cache(tmp_path).shards == whole.shards[:2]
    assert len(list(tmp_path.glob("*shard*"))) == 2
    assert cached(tmp_path).shards == whole.shards


def test_too_little_space_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1_000_000))
    now = live()
    monkeypatch.setattr(LiveActivations, "next_block", None)
    folder = tmp_path / "not" / "there"
    with pytest.raises(
        StorageError,
        match=r"of 4,000 tokens .* needs 1\.58 MB as float32, and 1 MB are free; "
        r"store bfloat16 \(800 kB\) or float16 \(800 kB\) or int8 \(457 kB\)",
    ):
        through_cache(now, folder, tokens=4_000)
    with pytest.raises(StorageError, match="free space, or train without a cache"):
        through_cache(now, folder, tokens=40_000_000)
    assert not (tmp_path / "not").exists()


def test_a_second_writer_waits_for_the_first_and_uses_its_cache(
    whole: ActivationCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = Thread(target=lambda: found.append(cached(tmp_path, tokens=1_000)))
        found: list[ActivationCache] = []
        second.start()
        while "waiting for it" not in caplog.text:
            second.join(0.01)
        shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    second.join()
    assert found[0].shards == whole.shards


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    cache = cached(tmp_path, tokens=2_000, on_progress=lambda *now: told.append(now))
    assert told[-1] == (cache.tokens, cache.tokens)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    before = len(told)
    cached(tmp_path, tokens=2_000, on_progress=lambda *now: told.append(now))
    assert len(told) == before + len(cache.shards) and told[-1] == (cache.tokens, cache.tokens)
