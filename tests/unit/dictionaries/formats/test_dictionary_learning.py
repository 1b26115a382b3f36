"""dictionary_learning's pickles, against their arithmetic written out here."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.core.errors import CheckpointError, ConfigError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries import SAE, convert
from pellucid.dictionaries.formats.load import load_dictionaries
from support.foreign_files import D, F, Function, draw, inputs, relu, relu_above, topk

EXTRA: dict[str, dict[str, Tensor]] = {
    "AutoEncoder": {"encoder.bias": draw(F), "bias": draw(D)},
    "AutoEncoderNew": {"encoder.bias": draw(F), "decoder.bias": draw(D)},
    "GatedAutoEncoder": {
        "decoder_bias": draw(D),
        "r_mag": 0.3 * draw(F),
        "gate_bias": draw(F, seed=1),
        "mag_bias": draw(F, seed=2),
    },
    "AutoEncoderTopK": {
        "encoder.bias": draw(F),
        "b_dec": draw(D),
        "k": torch.tensor(5, dtype=torch.int32),
        "threshold": torch.tensor(-1.0),
    },
    "BatchTopKSAE": {
        "encoder.bias": draw(F),
        "b_dec": draw(D),
        "k": torch.tensor(5, dtype=torch.int32),
        "threshold": torch.tensor(0.7),
    },
}


def write(folder: Path, kind: str, tensors: Any = None, **changes: Any) -> dict[str, Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    if tensors is None:
        tensors = {
            "encoder.weight": draw(F, D),
            "decoder.weight": draw(D, F),
            **EXTRA.get(kind, {}),
        }
    torch.save(tensors, folder / "ae.pt")
    trainer = {
        "dict_class": kind,
        "layer": 3,
        "lm_name": "EleutherAI/pythia-70m",
        "submodule_name": "resid_post_layer_3",
    } | changes
    config = {"trainer": trainer, "buffer": {"ctx_len": 128, "io": changes.get("io", "out")}}
    (folder / "config.json").write_text(json.dumps(config))
    return {name: tensor.double() for name, tensor in tensors.items()}


def computed(kind: str, t: dict[str, Tensor]) -> Tensor:
    bias = next(t[n] for n in ("bias", "b_dec", "decoder.bias", "decoder_bias") if n in t)
    x = inputs().double()
    x = x if kind == "AutoEncoderNew" else x - bias
    u = x @ t["encoder.weight"].T
    if kind == "GatedAutoEncoder":
        codes = (u + t["gate_bias"] > 0) * (t["r_mag"].exp() * u + t["mag_bias"]).clamp_min(0)
    else:
        functions: dict[str, Function] = {
            "AutoEncoderTopK": topk(5),
            "BatchTopKSAE": relu_above(torch.tensor(0.7)),
        }
        codes = functions.get(kind, relu)(u + t["encoder.bias"])
    return codes @ t["decoder.weight"].T + bias


@pytest.mark.parametrize("kind", EXTRA)
def test_it_computes_what_it_did(kind: str, tmp_path: Path) -> None:
    t = write(tmp_path, kind)
    loaded = load_dictionaries(tmp_path)
    assert isinstance(loaded[3], SAE)
    assert loaded[3].read_site == Site("resid_post", 3)
    assert loaded.manifest is not None
    assert loaded.manifest.config["model_name"] == "EleutherAI/pythia-70m"
    found = loaded[3].double()(inputs().double())
    torch.testing.assert_close(found, computed(kind, t), rtol=1e-6, atol=5e-6)


def test_jumprelu_computes_what_it_did(tmp_path: Path) -> None:
    tensors = {
        "W_enc": draw(D, F),
        "b_enc": draw(F),
        "W_dec": draw(F, D),
        "b_dec": draw(D),
        "threshold": draw(F, seed=1) * 0.5,
    }
    t = write(tmp_path, "JumpReluAutoEncoder", tensors)
    pre = inputs().double() @ t["W_enc"] + t["b_enc"]
    expected = relu_above(t["threshold"])(pre) @ t["W_dec"] + t["b_dec"]
    found = load_dictionaries(tmp_path)[3].double()(inputs().double())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=5e-6)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("CrossCoder", {}, "is a CrossCoder; pellucid reads AutoEncoder, "),
        ("AutoEncoder", {"submodule_name": "mlp_layer_3"}, "resid_post_layer_N alone"),
        ("AutoEncoder", {"io": "in"}, r"resid_post_layer_3' \(in\)"),
    ],
)
def test_what_pellucid_cannot_represent_is_refused(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path, kind, **changes)
    with pytest.raises(DictionaryError, match=message):
        load_dictionaries(tmp_path)


def test_a_threshold_that_was_never_measured_is_refused(tmp_path: Path) -> None:
    tensors = {"encoder.weight": draw(F, D), "decoder.weight": draw(D, F)}
    tensors |= EXTRA["BatchTopKSAE"] | {"threshold": torch.tensor(-1.0)}
    write(tmp_path, "BatchTopKSAE", tensors)
    with pytest.raises(DictionaryError, match="whose threshold was never measured"):
        load_dictionaries(tmp_path)


class Harm:
    """Unpickled, this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "harm")


@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_runs_nothing(plain: bool, tmp_path: Path) -> None:
    write(tmp_path, "AutoEncoder")
    made = tmp_path / "made"
    if plain:
        (tmp_path / "ae.pt").write_bytes(pickle.dumps(Harm(made)))
    else:
        torch.save({"encoder.weight": Harm(made)}, tmp_path / "ae.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_dictionaries(tmp_path)
    assert not made.exists()


def test_it_is_never_written(tmp_path: Path) -> None:
    write(tmp_path / "a", "AutoEncoder")
    with pytest.raises(ConfigError, match="dictionary-learning can be read but not written"):
        convert(load_dictionaries(tmp_path / "a"), tmp_path / "b", "dictionary-learning")
