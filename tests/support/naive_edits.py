"""Interventions done the slow and plain way: an oracle that shares no code with pellucid.

One prompt at a time, no cache, no padding: every forward reads the whole row, and hooks written
here edit the raw Hugging Face module. Where things are in each family is written out by hand.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from pellucid.dictionaries.base import Dictionary

Seen = dict[str, Tensor]
Edit = tuple[str, Callable[[Tensor, Seen], Tensor]]
"""A site's name, and a function of its values `[S, d]` and of what was read earlier in the run."""

_LLAMA = {
    "blocks": "model.layers",
    "attn_out": "self_attn",
    "mlp": "mlp",
    "mlp_out": "mlp",
    "o": "self_attn.o_proj",
    "qkv": "self_attn.{}_proj",
}
_GEMMA = _LLAMA | {
    "attn_out": "post_attention_layernorm",
    "mlp_out": "post_feedforward_layernorm",
}
_NEOX = {
    "blocks": "gpt_neox.layers",
    "attn_out": "attention",
    "mlp": "mlp",
    "mlp_out": "mlp",
    "o": "attention.dense",
    "qkv": "attention.query_key_value",
}
PARTS = {
    "gpt2": {
        "blocks": "transformer.h",
        "attn_out": "attn",
        "mlp": "mlp",
        "mlp_out": "mlp",
        "o": "attn.c_proj",
        "qkv": "attn.c_attn",
    },
    "gpt_neox": _NEOX,
    "gpt_neox_sequential": _NEOX,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "olmo2": _GEMMA,
    "phi3": _LLAMA | {"qkv": "self_attn.qkv_proj"},
}
PARALLEL = ("gpt_neox",)


def naive_logits(
    module: PreTrainedModel,
    family: str,
    ids: Sequence[int],
    edits: Sequence[Edit] = (),
    read: Sequence[str] = (),
) -> tuple[Float[Tensor, "S V"], Seen]:
    """The logits of one row under some edits, in the order given, and what was read."""
    seen: Seen = {}
    handles: list[Any] = []
    try:
        for site in read:
            handles += _register(module, family, site, _keep(seen, site), seen)
        for site, function in edits:
            handles += _register(module, family, site, function, seen)
        logits = module(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits, seen


def naive_greedy(
    module: PreTrainedModel,
    family: str,
    ids: Sequence[int],
    steps: int,
    edits: Sequence[Edit] = (),
    read: Sequence[str] = (),
) -> tuple[list[int], Float[Tensor, "T V"]]:
    """Greedy new tokens, each from a forward over the whole row so far, and their logits."""
    row, logits = list(ids), []
    for _ in range(steps):
        logits.append(naive_logits(module, family, row, edits, read)[0][-1])
        row.append(int(logits[-1].argmax()))
    return row[len(ids) :], torch.stack(logits)


def at_positions(
    positions: Sequence[int] | Callable[[int], Sequence[int]],
    function: Callable[[Tensor], Tensor],
) -> Callable[[Tensor, Seen], Tensor]:
    """An edit of some positions of a row; `positions` may depend on the row's length."""

    def edit(value: Tensor, _: Seen) -> Tensor:
        chosen = positions(len(value)) if callable(positions) else positions
        chosen = [each for each in chosen if each < len(value)]
        new = value.clone()
        for position in chosen:
            new[position] = function(value[position])
        return new

    return edit


def naive_activation(dictionary: Dictionary, x: Float[Tensor, " d"], feature: int) -> Tensor:
    """A feature's activation at one token, for the activations ReLU and TopK."""
    x = x - dictionary.b_dec if dictionary.kind == "sae" else x
    pre = dictionary.W_enc @ x + dictionary.b_enc
    k = getattr(dictionary.activation, "k", None)
    if k is not None and feature not in pre.topk(k).indices.tolist():
        return torch.zeros(())
    return pre[feature].clamp(min=0)


def head_columns(family: str, config: Any, kind: str, head: int | None) -> tuple[str, list[int]]:
    """The module (inside a block) whose output, or for `z` input, holds a head, and its columns."""
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    if head is None:
        count = heads if kind in "qz" else kv_heads
        every = [head_columns(family, config, kind, each) for each in range(count)]
        return every[0][0], [column for _, columns in every for column in columns]
    here = list(range(head * width, (head + 1) * width))
    if kind == "z":
        return PARTS[family]["o"], here
    path = PARTS[family]["qkv"].format(kind)
    if family.startswith("gpt_neox"):
        start = (3 * head + "qkv".index(kind)) * width
        return path, list(range(start, start + width))
    if family in ("gpt2", "phi3"):
        offset = {"q": 0, "k": heads * width, "v": (heads + kv_heads) * width}[kind]
        return path, [offset + column for column in here]
    return path, here


def _keep(seen: Seen, site: str) -> Callable[[Tensor, Seen], Tensor]:
    def keep(value: Tensor, _: Seen) -> Tensor:
        seen[site] = value.clone()
        return value

    return keep


def _register(
    module: PreTrainedModel,
    family: str,
    site: str,
    function: Callable[[Tensor, Seen], Tensor],
    seen: Seen,
) -> list[Any]:
    kind, _, rest = site.partition("@")
    layer = int(rest.split("[")[0]) if rest else 0
    parts = PARTS[family]
    block = module.get_submodule(f"{parts['blocks']}.{layer}")
    if kind in "qkvz":
        head = int(rest.split("[")[1][:-1]) if "[" in rest else None
        path, columns = head_columns(family, module.config, kind, head)

        def one_head(value: Tensor, seen: Seen) -> Tensor:
            new = value.clone()
            new[:, columns] = function(value[:, columns], seen)
            return new

        return [_hook(block.get_submodule(path), "in" if kind == "z" else "out", one_head, seen)]
    if kind == "resid_mid":
        return _resid_mid(block, parts, function, seen)
    where = {
        "embed": (block, "in"),
        "resid_pre": (block, "in"),
        "resid_post": (block, "out"),
        "attn_out": (block.get_submodule(parts["attn_out"]), "out"),
        "mlp_in": (block.get_submodule(parts["mlp"]), "in"),
        "mlp_out": (block.get_submodule(parts["mlp_out"]), "out"),
    }[kind]
    return [_hook(*where, function, seen)]


def _resid_mid(
    block: Any, parts: dict[str, str], function: Callable[[Tensor, Seen], Tensor], seen: Seen
) -> list[Any]:
    """resid_mid = resid_pre + attn_out, so what changes it is put into attn_out."""
    start: Seen = {}

    def shifted(value: Tensor, seen: Seen) -> Tensor:
        return function(start["pre"] + value, seen) - start["pre"]

    return [
        _hook(block, "in", _keep(start, "pre"), seen),
        _hook(block.get_submodule(parts["attn_out"]), "out", shifted, seen),
    ]


def _hook(
    module: torch.nn.Module, side: str, function: Callable[[Tensor, Seen], Tensor], seen: Seen
) -> Any:
    def output(_: Any, args: Any, result: Any) -> Any:
        if isinstance(result, tuple):
            return (function(result[0][0], seen)[None], *result[1:])
        return function(result[0], seen)[None]

    def given(_: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (function(args[0][0], seen)[None], *args[1:]), kwargs
        return args, kwargs | {"hidden_states": function(kwargs["hidden_states"][0], seen)[None]}

    if side == "out":
        return module.register_forward_hook(output)
    return module.register_forward_pre_hook(given, with_kwargs=True)
