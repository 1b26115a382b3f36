"""A source is recognised by its files, whatever it is; what is not is told what there is."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.dictionaries import FORMATS, DictionarySet, convert, save_dictionaries
from pellucid.dictionaries.formats.load import load_dictionaries, recognise
from support.dictionaries import random_dictionary
from support.foreign_files import clt_folder, llamascopium_sae, plt_set, saelens, sparsify


def write_all(folder: Path) -> dict[str, Path]:
    """A folder of most formats, by the format's name."""
    dictionary = {0: random_dictionary()}
    return {
        "pellucid": save_dictionaries(folder / "a", dictionary),
        "circuit-tracer": plt_set(folder / "b")[0],
        "circuit-tracer-clt": clt_folder(folder / "c")[0],
        "sparsify": sparsify(folder / "d" / "layers.0.mlp")[0].parent,
        "saelens": saelens(folder / "e", "standard")[0],
        "llamascopium": llamascopium_sae(folder / "f")[0],
    }


def test_every_format_is_recognised_as_itself_alone(tmp_path: Path) -> None:
    for name, folder in write_all(tmp_path).items():
        claims = [each for each in FORMATS if FORMATS[each].detect(folder)]
        assert claims == [name]
        assert recognise(folder).name == name
        load_dictionaries(folder)


def test_what_is_unknown_is_told_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"0")
    with pytest.raises(CheckpointError) as caught:
        load_dictionaries(tmp_path)
    for name in FORMATS:
        assert f"{name} ({FORMATS[name].recognised_by})" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_type_and_place_asked_for_are_given(tmp_path: Path) -> None:
    folder, _ = plt_set(tmp_path)
    assert load_dictionaries(folder, dtype=torch.bfloat16)[0].W_enc.dtype == torch.bfloat16


def test_other_formats_cannot_be_left_in_their_files(tmp_path: Path) -> None:
    folder, _ = plt_set(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"format circuit-tracer.*convert it first"):
        load_dictionaries(folder, lazy=True)
    convert(load_dictionaries(folder), tmp_path / "b", "pellucid")
    assert load_dictionaries(tmp_path / "b", lazy=True).layers == [0, 1, 2]


class Hub:
    """Stands in for the client of the hub."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[Any, ...]] = []

    def snapshot(self, repository: str, **options: Any) -> str:
        self.asked.append((repository, options["revision"], options["allow_patterns"]))
        return str(self.root)

    def file(self, repository: str, name: str, revision: str | None = None) -> str:
        self.asked.append((repository, revision, name))
        return str(self.root / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    client = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", client.snapshot)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", client.file)
    return client


def test_a_repository_gives_only_what_is_needed(hub: Hub) -> None:
    sparsify(hub.root / "layers.3.mlp")
    assert load_dictionaries("owner/name@v1").layers == [3]
    ((repository, revision, patterns),) = hub.asked
    assert (repository, revision) == ("owner/name", "v1")
    assert "*sae.safetensors" in patterns
    assert not any(pattern.endswith((".pt", ".npz")) for pattern in patterns)


def test_a_folder_inside_a_repository_may_be_named(hub: Hub) -> None:
    sparsify(hub.root / "runs" / "layers.3.mlp")
    assert load_dictionaries("owner/name/runs").layers == [3]
    patterns = hub.asked[0][2]
    assert "runs/*sae.safetensors" in patterns
    assert "runs/*params.npz" in patterns  # of the many in such a repository, one folder's
    with pytest.raises(CheckpointError, match="no dictionaries in 'else'"):
        load_dictionaries("owner/name/else")


@pytest.mark.parametrize("source", ["owner/name/../../x", "/no/where", "nowhere", "a b/c"])
def test_what_is_no_address_is_not_asked_for(source: str, hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_dictionaries(source)
    assert not hub.asked


def test_a_set_may_list_files_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    plt_set(hub.root, layers=2)
    address = "hf://google/some-repo/layer_1.safetensors?revision=abc"
    folder, _ = plt_set(tmp_path / "set", activation=f"transcoders: ['{address}']")
    loaded = load_dictionaries(folder)
    assert loaded.layers == [0]
    assert hub.asked == [("google/some-repo", "abc", "layer_1.safetensors")]
    bad, _ = plt_set(tmp_path / "bad", activation="transcoders: ['hf://a/b/../../etc/passwd']")
    with pytest.raises(CheckpointError, match="is no file of the hub"):
        load_dictionaries(bad)


def test_a_file_that_the_hub_does_not_give_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    folder, _ = plt_set(tmp_path, activation="transcoders: ['hf://a/b/c.safetensors']")
    with pytest.raises(CheckpointError, match=r"does not give hf://a/b/c\.safetensors \(Conn"):
        load_dictionaries(folder)


def test_what_is_known_of_a_set_goes_with_it(tmp_path: Path) -> None:
    figures = {"layers": [{"layer": 0, "fvu": 0.1, "l0": 5.0, "dead": 0.0}]}
    original = save_dictionaries(
        tmp_path / "a",
        {0: random_dictionary("sae", "topk")},
        model_fingerprint="abc",
        results=figures,
        config={"k": 5},
    )
    convert(load_dictionaries(original), tmp_path / "b", "saelens")
    convert(load_dictionaries(tmp_path / "b"), tmp_path / "c", "pellucid")
    manifest = load_dictionaries(tmp_path / "c").manifest
    assert manifest is not None
    assert manifest.parents == {"model": "abc"}
    assert manifest.results == figures
    assert manifest.config["training"] == {"k": 5}


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    ours = DictionarySet("a", {0: random_dictionary("transcoder", "relu")})
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        convert(ours, tmp_path / "there", "saelens")
    with pytest.raises(ConfigError, match="unknown dictionary format 'onnx'; use one of pellucid"):
        convert(ours, tmp_path / "out", "onnx")
    broken = DictionarySet("a", {0: random_dictionary("transcoder", "relu")})
    broken[0].b_enc[0] = torch.nan
    with pytest.raises(CheckpointError, match="in b_enc that is not finite"):
        convert(broken, tmp_path / "out", "saelens")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
