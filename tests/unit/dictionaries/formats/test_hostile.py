"""Damaged and made-up files of every format end in one clear error, never in a traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pellucid.core.errors import PellucidError
from pellucid.dictionaries.formats.load import load_dictionaries
from support.foreign_files import clt_folder, llamascopium_sae, plt_set, saelens, sparsify

WRITERS: dict[str, Callable[[Path], object]] = {
    "sparsify": lambda folder: sparsify(folder / "layers.0.mlp"),
    "saelens": lambda folder: saelens(folder, "jumprelu_skip_transcoder"),
    "circuit-tracer": lambda folder: plt_set(folder, layers=1, threshold=True),
    "circuit-tracer-clt": lambda folder: clt_folder(folder, layers=2),
    "llamascopium": lambda folder: llamascopium_sae(folder, act_fn="jumprelu", norms=True),
}
DAMAGE: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
    "missing": lambda t: None,
    "cut": lambda t: t[:-1].contiguous(),
    "deeper": lambda t: t[None],
    "not finite": lambda t: torch.full_like(t, torch.nan),
    "infinite": lambda t: torch.full_like(t, torch.inf),
    "empty": lambda t: t[:0].contiguous(),
    "yes or no": lambda t: t > 0,
    "whole": lambda t: t.to(torch.int32),
}


def weights(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", WRITERS)
def test_a_tensor_that_is_not_as_it_should_be(name: str, damage: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    load_dictionaries(tmp_path)
    for path in weights(tmp_path):
        whole = load_file(path)
        for key in (key for key in whole if whole[key].ndim):
            changed = DAMAGE[damage](whole[key])
            rest = {other: tensor for other, tensor in whole.items() if other != key}
            if damage == "missing" and key.endswith("threshold") and "activation" in key:
                continue  # without it, ReLU
            save_file(rest if changed is None else rest | {key: changed}, path)
            with pytest.raises(PellucidError) as caught:
                load_dictionaries(tmp_path)
            assert "\n" not in str(caught.value)
        save_file(whole, path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"a": ' * 5000])
@pytest.mark.parametrize("name", WRITERS)
def test_a_configuration_that_is_none(name: str, content: bytes, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    (path,) = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".yaml")]
    path.write_bytes(content)
    with pytest.raises(PellucidError):
        load_dictionaries(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


@pytest.mark.parametrize("name", ["sparsify", "saelens", "llamascopium"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_configuration_with_any_value_is_read_or_refused(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    folder = tmp_path / "x"
    WRITERS[name](folder)
    (path,) = folder.rglob("*.json")
    config = json.loads(path.read_text())
    places = [(config, key) for key in config]
    places += [(config["metadata"], key) for key in config.get("metadata", {})]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(VALUES)
    path.write_text(json.dumps(config))
    try:
        load_dictionaries(folder)
    except PellucidError as error:
        assert "\n" not in str(error)


def test_a_truncated_file_and_one_that_is_no_safetensors(tmp_path: Path) -> None:
    for content in (b"", b"\x00" * 8, b"\xff" * 100):
        plt_set(tmp_path, layers=1)
        (tmp_path / "layer_0.safetensors").write_bytes(content)
        with pytest.raises(PellucidError, match=r"layer_0\.safetensors cannot be read"):
            load_dictionaries(tmp_path)
