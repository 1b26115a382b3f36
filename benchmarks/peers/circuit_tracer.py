"""Loads a local model and transcoders into circuit-tracer. Runs in circuit-tracer's environment.

Nothing is folded or centred in the weights, so that both sides see the same residual stream. Only
what stops a local model from loading is worked around: TransformerLens refuses any name that is not
in its list, reloads the tokenizer by a class name that its older transformers does not know, and
has Gemma 2 in its published sizes alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
import transformer_lens.loading_from_pretrained as loading
import transformer_lens.utilities as lens_utilities
import yaml
from circuit_tracer.replacement_model.replacement_model_transformerlens import (
    TransformerLensReplacementModel,
)
from circuit_tracer.transcoder.activation_functions import TopK
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt
from circuit_tracer.transcoder.single_layer_transcoder import TranscoderSet
from circuit_tracer.utils.hf_utils import load_transcoders
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

GEMMA_2 = "google/gemma-2-2b"  # the published model whose conversion a local Gemma 2 borrows
ATTENTION = {"sliding_attention": "local", "full_attention": "global"}


def load_replacement_model(model: Path, transcoders: Path) -> TransformerLensReplacementModel:
    """A saved model and a folder of transcoders, as circuit-tracer's replacement model.

    `transcoders` holds circuit-tracer's `config.yaml`, and `layer_{i}.safetensors` with our
    `manifest.json`, or a cross-layer transcoder's `W_enc_{i}` and `W_dec_{i}.safetensors`. The
    encoder is loaded and the decoder read when needed, as circuit-tracer does by default.
    """
    hf_model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    name = str(model)
    convert = loading.convert_hf_model_config
    if hf_model.config.model_type == "gemma2":
        name = GEMMA_2
        convert = _resized_gemma_2(convert, hf_model.config)
    with (
        patch.object(loading, "get_official_model_name", lambda name: name),
        patch.object(loading, "convert_hf_model_config", convert),
        patch.object(lens_utilities, "get_tokenizer_with_bos", lambda tokenizer: tokenizer),
    ):
        return TransformerLensReplacementModel.from_pretrained_and_transcoders(
            name,
            _transcoders(transcoders, hf_model.config.num_hidden_layers),
            hf_model=hf_model,
            tokenizer=PreTrainedTokenizerFast.from_pretrained(model),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )


def _transcoders(folder: Path, n_layers: int) -> TranscoderSet | CrossLayerTranscoder:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    if config["model_kind"] == "cross_layer_transcoder":
        return load_clt(
            str(folder),
            feature_input_hook=config["feature_input_hook"],
            feature_output_hook=config["feature_output_hook"],
            scan=config["scan"],
            dtype=torch.float32,
        )
    config["transcoders"] = [
        str(folder / f"layer_{layer}.safetensors") for layer in range(n_layers)
    ]
    loaded = load_transcoders(config, lazy_encoder=False, lazy_decoder=True)
    # Its files do not say that an activation is TopK, so set what it has for that.
    layers = json.loads((folder / "manifest.json").read_text())["config"]["layers"]
    for layer, transcoder in enumerate(loaded):
        activation = layers[str(layer)]["activation"]
        if activation["name"] == "topk":
            transcoder.activation_function = TopK(activation["k"])
    return loaded


def _resized_gemma_2(
    published: Callable[..., dict[str, object]], config: PretrainedConfig
) -> Callable[..., dict[str, object]]:
    """TransformerLens's reading of its Gemma 2 entry, with the sizes of `config`."""

    def resized(name: str, **kwargs: object) -> dict[str, object]:
        return published(name, **kwargs) | {
            "d_model": config.hidden_size,
            "d_head": config.head_dim,
            "n_heads": config.num_attention_heads,
            "n_key_value_heads": config.num_key_value_heads,
            "d_mlp": config.intermediate_size,
            "n_layers": config.num_hidden_layers,
            "n_ctx": config.max_position_embeddings,
            "d_vocab": config.vocab_size,
            "eps": config.rms_norm_eps,
            "attn_types": [ATTENTION[kind] for kind in config.layer_types],
            "window_size": config.sliding_window,
            "attn_scores_soft_cap": config.attn_logit_softcapping,
            "output_logits_soft_cap": config.final_logit_softcapping,
        }

    return resized
