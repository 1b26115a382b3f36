"""The specimen's form: a small Llama, so that plain `transformers` loads it."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pellucid.specimen import vocabulary

CONTEXT = 256
"""The longest input in tokens."""


def build_config(
    *, layers: int = 4, width: int = 192, heads: int = 6, inner: int = 768
) -> LlamaConfig:
    """RMSNorm, rotary positions, SwiGLU, untied embeddings; the vocabulary is the corpus's."""
    return LlamaConfig(
        vocab_size=len(vocabulary.token_ids()),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=vocabulary.PAD_ID,
        bos_token_id=vocabulary.BOS_ID,
        eos_token_id=vocabulary.EOS_ID,
        dtype="float32",
    )


def build_model(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """A model with random weights that depend on the seed alone.

    Attention is `eager`: on CPU, at this size, a step is 1.3 times as fast as with SDPA.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")
    return model
