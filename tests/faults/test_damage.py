"""A damaged file of a checkpoint, a cache, dictionaries or a sweep is never used unseen."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.damage import ONE_ERROR, WARNED, survey
from pellucid.core.errors import CheckpointError
from pellucid.core.manifest import Manifest, read_manifest
from pellucid.dictionaries.checkpoint import save_dictionaries
from pellucid.dictionaries.formats.load import load_dictionaries
from pellucid.harvest.cache.cache import open_cache
from pellucid.harvest.cache.reading import CachedActivations
from pellucid.training.run_checkpoint import RunCheckpoint, load_newest, save_checkpoint
from pellucid.training.sweep.rows import SweepRow, load_row, save_row
from support.cached import MODEL, SITES, cached
from support.tiny_dictionaries import tiny_transcoders

SEED = 0
STEP = 5
"""Of every fifth byte of a small file a bit is flipped; `benchmarks.faults` takes every byte."""


def checkpoint(tokens: int) -> RunCheckpoint:
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(tokens))
    return RunCheckpoint(
        tokens=tokens,
        identity={"k": 8, "sites": {"0": ["mlp_in@0", "mlp_out@0"]}},
        state={"steps": tokens // 10, "seconds": tokens / 3},
        stream={"reading": 0, "document": tokens, "token": 7},
        tensors={"layer_0": {"W_enc": weights, "steps": torch.tensor(tokens)}},
    )


def contents(found: RunCheckpoint) -> Any:
    tensors = {
        f"{part}.{name}": tensor.tolist()
        for part, named in found.tensors.items()
        for name, tensor in named.items()
    }
    return found.tokens, found.identity, found.state, found.stream, tensors


def verdicts(files: list[Path], opened: Callable[[], Any], *, step: int = STEP) -> Counter[str]:
    """How often each verdict was, over all files and damages."""
    total: Counter[str] = Counter()
    for by_damage in survey(files, opened, random.Random(SEED), step=step).values():
        for counted in by_damage.values():
            total += counted
    return total


def test_a_damaged_checkpoint_is_named_and_the_older_one_taken(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(100))
    newest = save_checkpoint(tmp_path, checkpoint(200))
    answers: list[Any] = []

    def opened() -> Any:
        answers.append(contents(load_newest(tmp_path)))
        return answers[-1]

    found = verdicts(sorted(newest.iterdir()), opened)
    assert set(found) == {WARNED} and found[WARNED] > 250
    assert answers[0] == contents(checkpoint(200))
    assert all(answer == contents(checkpoint(100)) for answer in answers[1:])


def test_a_damaged_only_checkpoint_is_one_error(tmp_path: Path) -> None:
    only = save_checkpoint(tmp_path, checkpoint(100))
    found = verdicts(sorted(only.iterdir()), lambda: contents(load_newest(tmp_path)))
    assert set(found) == {ONE_ERROR}


def test_a_damaged_cache_is_one_error(tmp_path: Path) -> None:
    cached(tmp_path, tokens=600)

    def opened() -> Any:
        cache = open_cache(tmp_path)
        source = CachedActivations(cache, SITES, name="text")
        blocks = [source.next_block() for _ in cache.shards]
        return [(block.tokens.tolist(), block.values[SITES[0]].tolist()) for block in blocks]

    found = verdicts(sorted(tmp_path.glob("[!.]*")), opened)
    assert set(found) == {ONE_ERROR} and found[ONE_ERROR] > 200


def test_a_cache_that_lost_its_manifest_is_not_made_again_over_its_shards(tmp_path: Path) -> None:
    cached(tmp_path, tokens=1_000)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing, but 2 shards are there"):
        cached(tmp_path, tokens=1_000)


def test_damaged_dictionaries_are_one_error_whatever_format_they_might_be(tmp_path: Path) -> None:
    dictionaries = tiny_transcoders(MODEL)
    save_dictionaries(tmp_path / "set", dictionaries.dictionaries, model_fingerprint="abc")

    def opened() -> Any:
        loaded = load_dictionaries(tmp_path / "set")
        tensors = [each.tensors() for each in loaded.dictionaries.values()]
        return str(loaded.manifest), [{n: t.tolist() for n, t in each.items()} for each in tensors]

    found = verdicts(sorted((tmp_path / "set").iterdir()), opened, step=40)
    assert set(found) == {ONE_ERROR} and found[ONE_ERROR] > 300


def test_a_damaged_row_of_a_sweep_is_one_error(tmp_path: Path) -> None:
    save_dictionaries(tmp_path / "a", tiny_transcoders(MODEL).dictionaries, model_fingerprint="abc")
    row = SweepRow(
        name="a",
        kind="sae",
        activation="topk",
        features=48,
        k=4,
        sparsity=None,
        learning_rate=None,
        seed=0,
        target="resid_post",
        fvu=0.123,
        l0=4.0,
        dead=0.1,
        seconds=2.0,
        ce=None,
        kl=None,
        top1=None,
    )
    path = tmp_path / "a.json"
    save_row(row, path, tmp_path / "a")
    assert load_row(path, tmp_path / "a") == row
    found = survey([path], lambda: load_row(path, tmp_path / "a"), random.Random(SEED))["a.json"]
    assert set(found.pop("missing")) == {ONE_ERROR}
    assert all(set(counted) == {ONE_ERROR} for counted in found.values())


def test_line_ends_of_a_manifest_are_part_of_it(tmp_path: Path) -> None:
    Manifest(kind="graph").write(tmp_path, [])
    path = tmp_path / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r", 1))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path, kind="graph")


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("x")
    Manifest(kind="graph").write(tmp_path, ["part"])
    manifest = (tmp_path / "manifest.json").read_bytes()
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read \(.*directory"):
        read_manifest(tmp_path, kind="graph")
    shutil.rmtree(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_bytes(manifest)
    (tmp_path / "part").unlink()
    (tmp_path / "part").mkdir()
    with pytest.raises(CheckpointError, match="part is missing"):
        read_manifest(tmp_path, kind="graph")


@pytest.mark.parametrize("name", [".DS_Store", ".layer_0.safetensors.99.tmp", "stream_7.json"])
def test_a_stray_file_changes_nothing(tmp_path: Path, name: str) -> None:
    saved = save_checkpoint(tmp_path, checkpoint(100))
    (saved / name).write_text("{}")
    assert contents(load_newest(tmp_path)) == contents(checkpoint(100))


def test_a_stray_file_of_tensors_is_refused_by_name(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path, checkpoint(100))
    shutil.copy(saved / "layer_0.safetensors", saved / "._layer_0.safetensors")
    with pytest.raises(CheckpointError, match=r"\._layer_0\.safetensors is no part of the check"):
        load_newest(tmp_path)
