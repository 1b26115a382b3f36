"""dictionary_learning: `ae.pt` and `config.json`, read only.

Source: the keys and the arithmetic of dictionary_learning 0.1. The weights are a pickle; it is
loaded as tensors alone (`weights_only=True`) and never written. A BatchTopK at inference is a
threshold; which class a file is of is in its configuration.
"""

import re
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from pellucid.core.errors import CheckpointError, DictionaryError
from pellucid.core.types import AnySite, Site
from pellucid.dictionaries.activations import Activation, ReLU, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.files import (
    Fields,
    folders_with,
    read_json,
    read_pickled_tensors,
)
from pellucid.dictionaries.formats.format import DictionaryFormat, set_of
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import Parts, clamped_jumprelu, gated

CONFIG, WEIGHTS = "config.json", "ae.pt"
_SUBMODULE = re.compile(r"resid_post_layer_(\d+)")


@final
class DictionaryLearning(DictionaryFormat):
    """Standard, gated, JumpReLU, TopK and BatchTopK SAEs."""

    name = "dictionary-learning"
    recognised_by = f"{CONFIG} beside {WEIGHTS}"
    patterns: ClassVar = (f"*{CONFIG}", f"*{WEIGHTS}")
    one_of_many = True

    def detect(self, folder: Path) -> bool:
        """By the names of its files."""
        return bool(folders_with(folder, WEIGHTS, CONFIG))

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """The trainer's configuration names the class and the submodule."""
        found, names = {}, set()
        for home in folders_with(folder, WEIGHTS, CONFIG):
            trainer = _trainer(home / CONFIG)
            names.add(trainer.word("lm_name"))
            found[home] = _read(home, trainer)
        model = names.pop() if len(names) == 1 else None
        return set_of(folder, found, model_name=model)


def _trainer(path: Path) -> Fields:
    record = read_json(path)
    trainer = record.get("trainer")
    if not isinstance(trainer, dict):
        raise CheckpointError(f"{path} has no trainer; restore it from a copy")
    buffer = record.get("buffer")
    return Fields(path, {"io": "out"} | (buffer if isinstance(buffer, dict) else {}) | trainer)


def _read(home: Path, trainer: Fields) -> Dictionary:
    kind = trainer.text("dict_class")
    if kind not in _CLASSES:
        raise DictionaryError(
            f"{trainer.path} is a {kind}; pellucid reads {', '.join(sorted(_CLASSES))}"
        )
    tensors = Fields(home / WEIGHTS, read_pickled_tensors(home / WEIGHTS))
    parts = _CLASSES[kind](tensors)
    tensors.check_empty()
    site = _site(trainer)
    return parts.build(site, site)


def _site(trainer: Fields) -> AnySite:
    """The one place that a submodule's name says for certain."""
    name, io = str(trainer.maybe("submodule_name", "")), trainer.maybe("io")
    match = _SUBMODULE.fullmatch(name)
    if match is None or io != "out":
        raise DictionaryError(
            f"{trainer.path} reads submodule {name!r} ({io}); pellucid knows the output of "
            "resid_post_layer_N alone, because other names are a script's own"
        )
    return Site("resid_post", int(match[1]))


def _linear(tensors: Fields, bias: str) -> dict[str, Any]:
    """The weights of torch's linear layers: the encoder [F, d], the decoder [d, F]."""
    encoder: Tensor = tensors.matrix("encoder.weight", None, None)
    num_features, width = encoder.shape
    return {
        "W_enc": encoder,
        "W_dec": tensors.matrix("decoder.weight", width, num_features).T,
        "b_dec": tensors.matrix(bias, width),
    }


def _standard(tensors: Fields) -> Parts:
    parts = _linear(tensors, "bias")
    return Parts(
        **parts, b_enc=tensors.matrix("encoder.bias", len(parts["W_enc"])), activation=ReLU()
    )


def _uncentred(tensors: Fields) -> Parts:
    """The class whose decoder has the bias and whose encoder reads x itself."""
    parts = _linear(tensors, "decoder.bias")
    b_enc = tensors.matrix("encoder.bias", len(parts["W_enc"]))
    return Parts(**parts, b_enc=b_enc, activation=ReLU()).reading_raw()


def _gated(tensors: Fields) -> Parts:
    parts = _linear(tensors, "decoder_bias")
    num_features = len(parts["W_enc"])
    return gated(
        **parts,
        r_mag=tensors.matrix("r_mag", num_features),
        b_mag=tensors.matrix("mag_bias", num_features),
        b_gate=tensors.matrix("gate_bias", num_features),
    )


def _topk(tensors: Fields) -> Parts:
    parts = _linear(tensors, "b_dec")
    tensors.maybe("threshold")  # used only where asked for; encoding takes the k largest
    activation: Activation = TopK(tensors.count("k"))
    return Parts(
        **parts, b_enc=tensors.matrix("encoder.bias", len(parts["W_enc"])), activation=activation
    )


def _batch_topk(tensors: Fields) -> Parts:
    parts = _linear(tensors, "b_dec")
    tensors.maybe("k")
    threshold = tensors.matrix("threshold")
    if float(threshold) < 0:
        raise DictionaryError(
            f"{tensors.path} is a BatchTopK whose threshold was never measured; its selection "
            "depends on the batch, which pellucid cannot represent"
        )
    b_enc = tensors.matrix("encoder.bias", len(parts["W_enc"]))
    activation = clamped_jumprelu(torch.full_like(b_enc, float(threshold)))
    return Parts(**parts, b_enc=b_enc, activation=activation)


def _jumprelu(tensors: Fields) -> Parts:
    encoder: Tensor = tensors.matrix("W_enc", None, None)
    width, num_features = encoder.shape
    return Parts(
        W_enc=encoder.T,
        b_enc=tensors.matrix("b_enc", num_features),
        W_dec=tensors.matrix("W_dec", num_features, width),
        b_dec=tensors.matrix("b_dec", width),
        activation=clamped_jumprelu(tensors.matrix("threshold", num_features)),
    ).reading_raw()


_CLASSES = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _uncentred,
    "GatedAutoEncoder": _gated,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "JumpReluAutoEncoder": _jumprelu,
}
