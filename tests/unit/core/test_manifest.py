"""Manifests notice every way in which an artifact can differ from what was written."""

import json
from pathlib import Path

import pytest

from pellucid.core.errors import CheckpointError
from pellucid.core.manifest import MANIFEST_NAME, Manifest, config_hash, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(bytes(range(200)))
    manifest = Manifest(kind="dictionaries", config={"k": 12}, seed=3, parents={"model": "abc"})
    manifest.write(tmp_path, ["weights"])
    return tmp_path


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_NAME
    record = json.loads(path.read_text()) | changes
    del record["checksum"]  # as manifests before it had one
    path.write_text(json.dumps(record))


def test_what_is_written_is_read(folder: Path) -> None:
    manifest = read_manifest(folder, kind="dictionaries")
    assert (manifest.config, manifest.seed, manifest.parents) == ({"k": 12}, 3, {"model": "abc"})
    assert set(manifest.versions) >= {"python", "torch", "pellucid"}


@pytest.mark.parametrize("place", [0, 77, 199])
def test_a_flipped_bit_is_noticed(folder: Path, place: int) -> None:
    data = bytearray((folder / "weights").read_bytes())
    data[place] ^= 1
    (folder / "weights").write_bytes(data)
    with pytest.raises(CheckpointError, match="weights is damaged"):
        read_manifest(folder, kind="dictionaries")
    assert read_manifest(folder, kind="dictionaries", verify=False).seed == 3


def test_a_flipped_bit_of_the_manifest_is_noticed(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    text = path.read_bytes()
    for place in range(len(text)):
        path.write_bytes(text[:place] + bytes([text[place] ^ 1 << place % 8]) + text[place + 1 :])
        with pytest.raises(CheckpointError, match=r"manifest\.json (is damaged|cannot be read)"):
            read_manifest(folder, kind="dictionaries", verify=False)


def test_a_truncated_or_missing_file_is_noticed(folder: Path) -> None:
    (folder / "weights").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="damaged"):
        read_manifest(folder, kind="dictionaries")
    (folder / "weights").unlink()
    with pytest.raises(CheckpointError, match="weights is missing"):
        read_manifest(folder, kind="dictionaries")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "graph"}, "holds 'graph', not 'dictionaries'"),
        ({"schema_version": 99}, "schema version 99.*upgrade"),
        ({"surprise": 1}, "cannot be read"),
        ({"files": {"../outside": "0"}}, "outside its folder: '../outside'"),
    ],
)
def test_a_manifest_of_another_kind_or_version_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    rewrite(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(folder, kind="dictionaries")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null"])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_manifest(folder, kind="dictionaries")


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="give a folder written by pellucid"):
        read_manifest(tmp_path, kind="graph")


def test_the_hash_of_a_configuration_ignores_order() -> None:
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
