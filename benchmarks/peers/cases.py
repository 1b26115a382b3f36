"""Tiny random models and transcoders of every kind, written as both tracers read them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.models import CIRCUIT_TRACER_CONFIG
from pellucid.core.types import Site
from pellucid.dictionaries.activations import Activation, JumpReLU, ReLU, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.checkpoint import save_dictionaries
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.transcoder import Transcoder
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from tests.support.tiny_models import tiny_model, word_tokenizer

PROMPT = [1, 11, 42, 7, 42, 30, 9, 23]
FAMILIES = ("llama", "gemma2", "qwen3")
KINDS = ("relu", "jumprelu", "topk", "skip", "clt")
FEATURES = 40
TOPK = 5
_CLT_ENCODER = ("W_enc", "b_enc", "b_dec")
_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": False, "mlp_bias": False},  # circuit-tracer drops Llama's biases
    "gemma2": {},
    "qwen3": {},
}


def write_peer_case(family: str, kind: str, folder: Path) -> tuple[LanguageModel, DictionarySet]:
    """Write `folder/model` and `folder/transcoders`; returns them as we hold them."""
    tokenizer = word_tokenizer()
    module = tiny_model(family, tokenizer=tokenizer, **_SETTINGS[family])
    module.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    model = load_model(module, tokenizer)
    dictionaries = random_transcoders(model, kind)
    write_for_both(folder / "transcoders", dictionaries)
    return model, dictionaries


def write_for_both(folder: Path, dictionaries: DictionarySet) -> None:
    """Write transcoders so that both tracers read them."""
    save_dictionaries(folder, dictionaries.dictionaries)
    kind = "transcoder_set"
    for layer, dictionary in dictionaries.dictionaries.items():
        if not isinstance(dictionary, CrossLayerTranscoder):
            continue
        kind = "cross_layer_transcoder"
        decoder = {f"W_dec_{layer}": dictionary.W_dec.data}
        rest = {f"{name}_{layer}": getattr(dictionary, name).data for name in _CLT_ENCODER}
        save_file(decoder, folder / f"W_dec_{layer}.safetensors")
        save_file(rest, folder / f"W_enc_{layer}.safetensors")
    (folder / "config.yaml").write_text(CIRCUIT_TRACER_CONFIG.format(kind=kind))


def random_transcoders(model: LanguageModel, kind: str, *, seed: int = 0) -> DictionarySet:
    """One random transcoder a layer; every tensor is non-zero."""
    generator = torch.Generator().manual_seed(seed)
    width = model.d_model

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / width**0.5

    def activation() -> Activation:
        if kind == "jumprelu":
            return JumpReLU(torch.rand(FEATURES, generator=generator))
        return TopK(TOPK) if kind == "topk" else ReLU()

    def transcoder(layer: int) -> Dictionary:
        b_enc = draw(FEATURES)
        parts = {
            "W_enc": draw(FEATURES, width),
            "b_enc": b_enc + 2.0 if kind == "topk" else b_enc,
            "b_dec": draw(width),
            "activation": activation(),
            "read_site": Site("mlp_in", layer),
            "write_site": Site("mlp_out", layer),
        }
        if kind == "clt":
            return CrossLayerTranscoder(
                W_dec=draw(FEATURES, model.n_layers - layer, width), **parts
            )
        w_skip = draw(width, width) if kind == "skip" else None
        return Transcoder(W_dec=draw(FEATURES, width), W_skip=w_skip, **parts)

    return DictionarySet("random", {layer: transcoder(layer) for layer in range(model.n_layers)})
