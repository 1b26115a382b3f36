"""The options of `train` that say what is read: sources, rows, norms, caches."""

import json
from pathlib import Path

from pellucid.core.manifest import read_manifest
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
