"""Checkpoints of a run: whole or not there, and the newest that is whole wins."""

import errno
import json
import logging
from pathlib import Path

import pytest
import torch

from pellucid.core.errors import CheckpointError, ConfigError, StorageError
from pellucid.distributed import tensors
from pellucid.training import run_checkpoint
from pellucid.training.run_checkpoint import (
    RunCheckpoint,
    check_identity,
    has_checkpoint,
    load_newest,
    save_checkpoint,
)


def checkpoint(tokens: int) -> RunCheckpoint:
    generator = torch.Generator().manual_seed(tokens)
    return RunCheckpoint(
        tokens=tokens,
        identity={"k": 8, "sites": {"0": ["mlp_in@0", "mlp_out@0"]}},
        state={"steps": tokens // 10, "seconds": 0.1 + tokens / 3},
        tensors={
            "layer_0": {"W": torch.randn(3, 5, generator=generator), "steps": torch.tensor(tokens)},
            "layer_1": {"W": torch.randn(7, generator=generator).double()},
        },
    )


def assert_same(found: RunCheckpoint, expected: RunCheckpoint) -> None:
    assert (found.tokens, found.identity, found.state) == (
        expected.tokens,
        expected.identity,
        expected.state,
    )
    assert found.tensors.keys() == expected.tensors.keys()
    for part, named in expected.tensors.items():
        assert found.tensors[part].keys() == named.keys()
        for name, tensor in named.items():
            assert found.tensors[part][name].dtype == tensor.dtype
            assert found.tensors[part][name].equal(tensor)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path / "none")
    save_checkpoint(tmp_path, checkpoint(50))
    assert has_checkpoint(tmp_path)
    assert_same(load_newest(tmp_path), checkpoint(50))


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for tokens in (90, 100, 1_000, 20_000):
        newest = save_checkpoint(tmp_path, checkpoint(tokens))
        assert_same(load_newest(tmp_path), checkpoint(tokens))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-00000000001000",
        newest.name,
    ]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)


DAMAGES = {
    "flipped bit": flip_a_bit,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "missing": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["layer_1.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, damage: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, checkpoint(100))
    newest = save_checkpoint(tmp_path, checkpoint(200))
    DAMAGES[damage](newest / name)
    with caplog.at_level(logging.WARNING):
        assert_same(load_newest(tmp_path), checkpoint(100))
    assert newest.name in caplog.text


def test_a_checkpoint_without_its_manifest_is_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(100))
    (save_checkpoint(tmp_path, checkpoint(200)) / "manifest.json").write_text('{"kind": "tra')
    assert_same(load_newest(tmp_path), checkpoint(100))


def test_when_every_checkpoint_is_damaged_there_is_one_error(tmp_path: Path) -> None:
    for tokens in (100, 200):
        flip_a_bit(save_checkpoint(tmp_path, checkpoint(tokens)) / "layer_0.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint that is whole; restore"):
        load_newest(tmp_path)


@pytest.mark.parametrize("failing", ["save_file", "read_manifest"])
def test_a_failed_save_leaves_the_ones_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    for tokens in (100, 200):
        save_checkpoint(tmp_path, checkpoint(tokens))

    def fail(*args: object, **kwargs: object) -> None:
        if failing == "save_file":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise CheckpointError("what was read back is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(tensors if failing == "save_file" else run_checkpoint, failing, fail)
        error = StorageError if failing == "save_file" else CheckpointError
        with pytest.raises(error):
            save_checkpoint(tmp_path, checkpoint(300))
    folders = {path.name[-3:] for path in tmp_path.iterdir()}
    assert folders >= {"100", "200"}
    if failing == "save_file":
        assert folders == {"100", "200"}
        assert_same(load_newest(tmp_path), checkpoint(200))


def test_what_a_killed_process_left_is_cleared_or_recovered(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path, checkpoint(100))
    saved.rename(tmp_path / f".{saved.name}.previous")  # killed between two renames
    assert_same(load_newest(tmp_path), checkpoint(100))
    unfinished = tmp_path / ".checkpoint-00000000000200.x.tmp"
    unfinished.mkdir()
    (unfinished / "layer_0.safetensors").write_bytes(b"half")
    save_checkpoint(tmp_path, checkpoint(300))
    assert not unfinished.exists()


def test_the_first_difference_is_named() -> None:
    ours = {"k": 8, "seed": 1, "text": "a"}
    check_identity(ours, json.loads(json.dumps(ours)), out=Path("runs/a"))
    with pytest.raises(ConfigError, match=r"run in runs/a: its k is 8, now it is 9; resume with"):
        check_identity(ours, ours | {"k": 9}, out=Path("runs/a"))
    with pytest.raises(ConfigError, match="its seed is 1, now it is None"):
        check_identity(ours, {"k": 8, "text": "a"}, out=Path("runs/a"))
