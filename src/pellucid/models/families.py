"""The supported families, each a declaration. Sources: the `modeling_*.py` of transformers 5."""

from dataclasses import replace

from transformers import PretrainedConfig

from pellucid.core.registry import Registry
from pellucid.models.arch import ArchSpec, NormForm, Rotary
from pellucid.models.attention_layouts import SEPARATE, head_by_head, in_turn
from pellucid.models.mlp import MlpLayout

LAYER_NORM = NormForm(centred=True, eps="eps")
RMS_NORM = NormForm()
GEMMA_NORM = NormForm(gain_offset=1.0, eps="eps")

WITH_HEAD_NORMS = replace(SEPARATE, query_norm="q_norm", key_norm="k_norm")

LLAMA = ArchSpec(
    family="llama",
    model_type="llama",
    embedding="model.embed_tokens",
    blocks="model.layers",
    final_norm="model.norm",
    unembedding="lm_head",
    attention="self_attn",
    mlp="mlp",
    attn_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    norm=RMS_NORM,
    layout=SEPARATE,
    rotary=Rotary("model.rotary_emb"),
)

GPT2 = ArchSpec(
    family="gpt2",
    model_type="gpt2",
    embedding="transformer.wte",
    positions="transformer.wpe",
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    unembedding="lm_head",
    attention="attn",
    mlp="mlp",
    attn_norm="ln_1",
    mlp_norm="ln_2",
    norm=LAYER_NORM,
    layout=in_turn("c_attn", "c_proj"),
    mlp_layout=MlpLayout(up="c_fc", gate=None, down="c_proj", act="act"),
)

GPT_NEOX = ArchSpec(
    family="gpt_neox",
    model_type="gpt_neox",
    when={"use_parallel_residual": True},
    embedding="gpt_neox.embed_in",
    blocks="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    unembedding="lm_head",
    attention="attention",
    mlp="mlp",
    attn_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    norm=LAYER_NORM,
    layout=head_by_head("query_key_value", "dense"),
    rotary=Rotary("gpt_neox.rotary_emb"),
    mlp_layout=MlpLayout(up="dense_h_to_4h", gate=None, down="dense_4h_to_h", act="act"),
    parallel=True,
)

GEMMA2 = replace(
    LLAMA,
    family="gemma2",
    model_type="gemma2",
    logit_softcap="final_logit_softcapping",
    score_softcap="attn_logit_softcapping",
    attn_post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
    norm=GEMMA_NORM,
)

_SPECS = (
    GPT2,
    GPT_NEOX,
    replace(
        GPT_NEOX,
        family="gpt_neox_sequential",
        when={"use_parallel_residual": False},
        parallel=False,
    ),
    LLAMA,
    replace(LLAMA, family="mistral", model_type="mistral"),
    replace(LLAMA, family="qwen2", model_type="qwen2"),
    replace(LLAMA, family="qwen3", model_type="qwen3", layout=WITH_HEAD_NORMS),
    GEMMA2,
    replace(
        GEMMA2,
        family="gemma3",
        model_type="gemma3_text",
        score_softcap=None,  # its configuration has the value, its attention ignores it
        layout=WITH_HEAD_NORMS,
        rotary=Rotary("model.rotary_emb", by_layer_type=True),
    ),
    replace(
        LLAMA,
        family="olmo2",
        model_type="olmo2",
        attn_norm=None,
        attn_post_norm="post_attention_layernorm",
        mlp_norm=None,
        mlp_post_norm="post_feedforward_layernorm",
        layout=WITH_HEAD_NORMS,
    ),
    replace(
        LLAMA,
        family="phi3",
        model_type="phi3",
        layout=in_turn("qkv_proj", "o_proj"),
        mlp_layout=MlpLayout(
            up="gate_up_proj", gate="gate_up_proj", down="down_proj", act="activation_fn"
        ),
    ),
)

FAMILIES: Registry[ArchSpec] = Registry("family", {spec.family: spec for spec in _SPECS})


def find_spec(config: PretrainedConfig | None) -> ArchSpec | None:
    """The description that fits a configuration, or None if no family does."""
    for spec in _SPECS:
        if getattr(config, "model_type", None) == spec.model_type and all(
            getattr(config, name, None) == value for name, value in spec.when.items()
        ):
            return spec
    return None
