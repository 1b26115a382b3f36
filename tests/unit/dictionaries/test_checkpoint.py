"""Dictionaries on disk: exact round trips, and a clear refusal of everything damaged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid.core.errors import CheckpointError, DictionaryError, PellucidError, StorageError
from pellucid.core.files import sha256
from pellucid.dictionaries import load_dictionaries, save_dictionaries
from support.dictionaries import ACTIVATION_NAMES, KINDS, random_dictionary


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    dictionaries = {layer: random_dictionary(layer=layer, seed=layer) for layer in (0, 2)}
    return save_dictionaries(
        tmp_path / "set", dictionaries, model_fingerprint="abc", config={"k": 5}, seed=3
    )


def _edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    record = json.loads(path.read_text()) | changes
    del record["checksum"]  # as manifests before it had one
    path.write_text(json.dumps(record))


def _edit_tensors(folder: Path, changes: dict[str, torch.Tensor]) -> None:
    """Change a layer's file and its checksum, as a broken writer would."""
    path = folder / "layer_0.safetensors"
    save_file(load_file(path) | changes, path)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    _edit_manifest(folder, files=files | {path.name: sha256(path)})


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_is_exact(kind: str, activation: str, tmp_path: Path) -> None:
    original = random_dictionary(kind, activation)
    folder = save_dictionaries(tmp_path / "set", {5: original})
    loaded = load_dictionaries(folder)[5]
    assert type(loaded) is type(original)
    assert loaded.activation.settings() == original.activation.settings()
    assert (loaded.read_site, loaded.write_site) == (original.read_site, original.write_site)
    for name, tensor in original.tensors().items():
        assert torch.equal(loaded.tensors()[name], tensor), name


def test_the_manifest_tells_where_a_set_comes_from(saved: Path) -> None:
    dictionaries = load_dictionaries(str(saved))
    assert dictionaries.name == "set"
    assert dictionaries.layers == [0, 2]
    assert dictionaries.manifest is not None
    assert dictionaries.manifest.parents == {"model": "abc"}
    assert dictionaries.manifest.config["training"] == {"k": 5}
    assert dictionaries.manifest.seed == 3


def test_tensors_have_the_names_of_the_interchange_format(saved: Path) -> None:
    tensors = load_file(saved / "layer_0.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "W_enc": (37, 11),
        "W_dec": (37, 7),
        "b_enc": (37,),
        "b_dec": (7,),
    }


def test_float16_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    original = random_dictionary(features=500)
    sizes = {}
    for dtype in (torch.float32, torch.float16):
        folder = save_dictionaries(tmp_path / str(dtype), {0: original}, dtype=dtype)
        sizes[dtype] = (folder / "layer_0.safetensors").stat().st_size
    loaded = load_dictionaries(folder)[0]
    assert sizes[torch.float16] < 0.55 * sizes[torch.float32]
    assert loaded.W_enc.dtype == torch.float32
    torch.testing.assert_close(loaded.W_enc, original.W_enc, rtol=5e-4, atol=1e-6)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.999])
def test_every_flipped_bit_is_found(saved: Path, position: float) -> None:
    path = saved / "layer_2.safetensors"
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"layer_2\.safetensors is damaged"):
        load_dictionaries(saved)


def test_a_truncated_file_is_found(saved: Path) -> None:
    path = saved / "layer_0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"layer_0\.safetensors is damaged"):
        load_dictionaries(saved)


def test_a_missing_file_is_found(saved: Path) -> None:
    (saved / "layer_0.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"layer_0\.safetensors is missing"):
        load_dictionaries(saved)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"layers": 3},
        {"layers": {"x": {}}},
        {"layers": {"0": {}}},
        {"layers": {"0": {"kind": "clt", "activation": {"name": "topk", "k": 5}}}},
        {"layers": {"0": {"kind": "transcoder", "activation": {"name": "topk", "m": 5}}}},
        {"layers": {"0": {"kind": "transcoder", "activation": {"name": "topk", "k": 99}}}},
        {"layers": {"0": {"kind": "transcoder", "activation": {"name": "jumprelu"}}}},
        {"layers": {"9": {"kind": "transcoder", "activation": {"name": "topk", "k": 5}}}},
    ],
)
def test_a_manifest_that_does_not_describe_the_files_is_refused(
    saved: Path, config: dict[str, Any]
) -> None:
    for layer in (
        config.get("layers", {}).values() if isinstance(config.get("layers"), dict) else ()
    ):
        layer |= {"read_site": "mlp_in@0", "write_site": "mlp_out@0"}
    _edit_manifest(saved, config=config)
    with pytest.raises(PellucidError):
        load_dictionaries(saved)


def test_tensors_of_another_shape_are_refused(saved: Path) -> None:
    _edit_tensors(saved, {"W_dec": torch.zeros(36, 7)})
    with pytest.raises(DictionaryError, match=r"W_dec has shape \(36, 7\)"):
        load_dictionaries(saved)


def test_an_unknown_tensor_is_refused(saved: Path) -> None:
    _edit_tensors(saved, {"W_gate": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="W_gate"):
        load_dictionaries(saved)


def test_a_value_that_is_not_finite_is_refused(saved: Path) -> None:
    _edit_tensors(saved, {"b_enc": torch.full((37,), torch.nan)})
    with pytest.raises(CheckpointError, match="value in b_enc that is not finite"):
        load_dictionaries(saved)


def test_a_wrong_path_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_dictionaries(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no format that pellucid knows"):
        load_dictionaries(tmp_path)


def test_a_hub_id_is_downloaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(source: str, **options: Any) -> str:
        asked.append(source)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load_dictionaries("owner/transcoders").layers == [0, 2]
    assert asked == ["owner/transcoders"]


def test_a_hub_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(source: str, **options: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match="the hub gives no such repository"):
        load_dictionaries("owner/transcoders")


def test_a_write_that_fails_leaves_the_earlier_set(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pellucid.dictionaries.checkpoint.save_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_dictionaries(saved, {0: random_dictionary()})
    assert load_dictionaries(saved).layers == [0, 2]
