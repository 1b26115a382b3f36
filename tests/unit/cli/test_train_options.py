"""The options of `train` that say what is read: sources, rows, norms, caches."""

import json
from pathlib import Path

import pytest

from pellucid.core.manifest import read_manifest
from pellucid.training import TrainingStoppedError, loop
from pellucid.training.finetune import loop as finetune_loop
from unit.cli.conftest import Command, Workshop


def test_train_reads_mixtures_through_a_cache(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    command = ["train", workshop.model, "--data", f"{workshop.text}=1", "--tokens", "2k"]
    command += ["--data", f"{workshop.text.parent}=3", "--layers", "0", "--features", 64, "--k", 4]
    command += ["--batch-tokens", 256, "--packing", "packed", "--exclude-high-norm", "1.5"]
    command += ["--cache", cache]

    made = pellucid(*command, "--cache-dtype", "int8", "--out", tmp_path / "a", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["excluded_tokens"] > 0
    config = read_manifest(cache, kind="activation-cache").config
    assert (config["dtype"], config["packing"], config["exclude_high_norm"]) == (
        "int8",
        "packed",
        1.5,
    )

    shuffled = pellucid(*command, "--cache-order", "shuffled", "--out", tmp_path / "b")
    assert shuffled.code == 0, shuffled.err
    assert "tokens of high norm were left out of training" in shuffled.out

    other = pellucid(*command, "--cache-dtype", "float16", "--out", tmp_path / "c", "--quiet")
    assert other.code == 2
    assert other.err.count("\n") == 1
    assert "its dtype is 'int8', asked for is 'float16'" in other.err

    shard = cache / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    damaged = pellucid(*command, "--out", tmp_path / "d", "--quiet")
    assert damaged.code == 2
    assert damaged.err.count("\n") == 1 and f"{shard} is damaged" in damaged.err
    assert not (tmp_path / "d").exists()


def test_checkpoint_every_says_how_often_a_run_saves_itself(
    pellucid: Command, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def stop_at_once(*arguments: object, checkpoint_seconds: float, **options: object) -> None:
        asked.append(checkpoint_seconds)
        raise TrainingStoppedError("enough")

    command = ["train", workshop.model, "--data", workshop.text, "--tokens", 768, "--features", 64]
    command += ["--k", 4, "--batch-tokens", 256, "--layers", "0", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "keep_going", stop_at_once)
        for every in ([], ["--checkpoint-every", "0.5"]):
            assert pellucid(*command, *every, "--out", tmp_path / "stopped").code == 130
    assert asked == [300.0, 0.5]

    refused = pellucid(*command, "--checkpoint-every", "-1", "--out", tmp_path / "refused")
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "checkpoint_seconds is -1.0; give 0 (after every step) or a pos" in refused.err
    assert not (tmp_path / "refused").exists()

    monkeypatch.setattr(finetune_loop, "keep_going", stop_at_once)
    words = ["train", "specimen", "--dictionaries", "specimen", "--finetune", "kl", "--quiet"]
    words += ["--out", tmp_path / "tuned", "--checkpoint-every", "7"]
    assert pellucid(*words).code == 130
    assert asked[2:] == [7.0]
