"""Tiny random models of every supported family, and a word-level tokenizer to go with them.

Every parameter is drawn away from its initial value (gains are not 1, biases are not 0), so that a
forgotten bias, gain or offset shows. Grouped-query attention, sliding windows and softcaps are on
wherever the family has them.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedModel, PreTrainedTokenizerFast

VOCAB_SIZE = 67
D_MODEL = 32
N_LAYERS = 3
CONTEXT_LENGTH = 48
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
UNKNOWN_TOKEN = "<unk>"

_COMMON = {"vocab_size": VOCAB_SIZE, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA_FORM = _COMMON | {
    "hidden_size": D_MODEL,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "tie_word_embeddings": False,
}
_NEOX_FORM = {k: v for k, v in _LLAMA_FORM.items() if k != "num_key_value_heads"} | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
}
_GEMMA_FORM = _LLAMA_FORM | {
    "head_dim": 12,
    "query_pre_attn_scalar": 12,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "tie_word_embeddings": True,
}

# family -> (name of the configuration class, name of the model class, settings)
_RECIPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        _COMMON
        | {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 4, "n_positions": CONTEXT_LENGTH},
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        _NEOX_FORM | {"use_parallel_residual": True},
    ),
    "gpt_neox_sequential": (
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        _NEOX_FORM | {"use_parallel_residual": False},
    ),
    "llama": (
        "LlamaConfig",
        "LlamaForCausalLM",
        _LLAMA_FORM | {"attention_bias": True, "mlp_bias": True},
    ),
    "mistral": ("MistralConfig", "MistralForCausalLM", _LLAMA_FORM | {"sliding_window": 4}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _LLAMA_FORM),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _LLAMA_FORM | {"head_dim": 12}),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        _GEMMA_FORM | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", _GEMMA_FORM),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", _LLAMA_FORM),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _LLAMA_FORM | {"sliding_window": 5}),
}
FAMILIES: tuple[str, ...] = tuple(_RECIPES)


def tiny_model(
    family: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """A Hugging Face model of `family` with random weights, in eval mode.

    Args:
        family: one of `FAMILIES`.
        seed: of the weights.
        dtype: of the weights; the same numbers are drawn for every dtype.
        tokenizer: when given, its length becomes the vocabulary size.
        settings: overrides of the configuration.
    """
    config_class, model_class, recipe = _RECIPES[family]
    if tokenizer is not None:
        recipe = recipe | {"vocab_size": len(tokenizer)}
    config = getattr(transformers, config_class)(**(recipe | settings))
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class)(config)
    randomize(model, seed=seed)
    return model.to(dtype).eval()


@torch.no_grad()
def randomize(model: torch.nn.Module, *, seed: int) -> None:
    """Draw every parameter anew: matrices of unit gain, gains and biases moved off 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.add_(0.3 * noise)
        else:
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)


def word_tokenizer(vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocab_size` whole words: `<pad> <bos> <eos> <unk>`, then `w4 w5 ...`."""
    words = [*SPECIAL_TOKENS.values(), UNKNOWN_TOKEN]
    words += [f"w{index}" for index in range(len(words), vocab_size)]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN_TOKEN))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=UNKNOWN_TOKEN, **SPECIAL_TOKENS
    )


def save_tiny_llama(folder: Path, *, seed: int = 0, **settings: Any) -> Path:
    """Write a tiny Llama and its tokenizer with `save_pretrained`; returns `folder`."""
    tokenizer = word_tokenizer()
    tiny_model("llama", seed=seed, tokenizer=tokenizer, **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
