import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.types import Site
from pellucid.models.linear import AttentionWeights, NormWeights
from pellucid.models.load import load_model
from pellucid.models.taps import TapPoint
from support.tiny_models import tiny_model

D = 6


def norm(*, centred: bool, bias: bool) -> NormWeights:
    return NormWeights(
        gain=torch.randn(D, dtype=torch.float64),
        bias=torch.randn(D, dtype=torch.float64) if bias else None,
        centred=centred,
        eps=1e-3,
        path="norm",
    )


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_against_torch(bias: bool) -> None:
    weights, x = norm(centred=True, bias=bias), torch.randn(3, 4, D, dtype=torch.float64)
    expected = F.layer_norm(x, (D,), weights.gain, weights.bias, weights.eps)
    torch.testing.assert_close(weights.apply(x, weights.scale(x)), expected)


def test_rms_norm_against_torch() -> None:
    weights, x = norm(centred=False, bias=False), torch.randn(3, 4, D, dtype=torch.float64)
    expected = F.rms_norm(x, (D,), weights.gain, weights.eps)
    torch.testing.assert_close(weights.apply(x, weights.scale(x)), expected)


@pytest.mark.parametrize("centred", [False, True])
def test_a_frozen_norm_is_affine(centred: bool) -> None:
    weights = norm(centred=centred, bias=True)
    x, y = torch.randn(2, 5, D, dtype=torch.float64)
    scale = weights.scale(x)

    def f(z: Tensor) -> Tensor:
        return weights.apply(z, scale)

    torch.testing.assert_close(f(x + 2 * y) - f(x), 2 * (f(y) - f(torch.zeros_like(y))))


def test_scale_of_half_precision_is_computed_in_float32() -> None:
    weights = norm(centred=False, bias=False)
    x = torch.full((1, D), 300.0, dtype=torch.float16)  # the square overflows
    scale = weights.scale(x)
    assert scale.dtype == torch.float32
    torch.testing.assert_close(scale, torch.full((1, 1), 1 / 300.0))


def attention(*, heads: int, kv_heads: int, d_head: int, bias: bool) -> AttentionWeights:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    return AttentionWeights(
        w_v=draw(D, kv_heads * d_head),
        b_v=draw(kv_heads * d_head) if bias else None,
        w_o=draw(heads * d_head, D),
        b_o=draw(D) if bias else None,
        n_heads=heads,
        n_kv_heads=kv_heads,
        d_head=d_head,
        path="attention",
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 2), (6, 1)])
def test_frozen_attention_against_loops(heads: int, kv_heads: int, bias: bool) -> None:
    d_head, batch, length = 3, 2, 5
    weights = attention(heads=heads, kv_heads=kv_heads, d_head=d_head, bias=bias)
    x = torch.randn(batch, length, D, dtype=torch.float64)
    pattern = torch.rand(batch, heads, length, length, dtype=torch.float64)

    expected = torch.zeros_like(x)
    for b in range(batch):
        for s in range(length):
            for h in range(heads):
                kv = h * kv_heads // heads
                mine = slice(h * d_head, (h + 1) * d_head)
                theirs = slice(kv * d_head, (kv + 1) * d_head)
                for t in range(length):
                    value = x[b, t] @ weights.w_v[:, theirs]
                    if weights.b_v is not None:
                        value = value + weights.b_v[theirs]
                    expected[b, s] += pattern[b, h, s, t] * (value @ weights.w_o[mine])
            if weights.b_o is not None:
                expected[b, s] += weights.b_o

    torch.testing.assert_close(weights.apply(x, pattern), expected)


def test_weights_are_the_models_own_and_norms_at_least_float32() -> None:
    model = load_model(tiny_model("llama", dtype=torch.bfloat16))
    block = model.block(1)
    own = model.module.model.layers[1]
    assert block.attention.w_o.data_ptr() == own.self_attn.o_proj.weight.data_ptr()
    assert block.attention.w_v.dtype == torch.bfloat16
    assert block.mlp_norm is not None
    assert block.mlp_norm.gain.dtype == torch.float32
    assert block.mlp_norm.path == "model.layers.1.post_attention_layernorm"
    assert torch.equal(block.mlp_norm.gain, own.post_attention_layernorm.weight.float())
    assert not block.attention.w_v.requires_grad


def test_gemma_gain_is_one_plus_the_stored_weight() -> None:
    model = load_model(tiny_model("gemma2"))
    stored = model.module.model.norm.weight
    torch.testing.assert_close(model.final_norm().gain, 1 + stored)


@pytest.mark.parametrize(
    ("family", "present"),
    [
        ("llama", (True, False, True, False)),
        ("gemma2", (True, True, True, True)),
        ("olmo2", (False, True, False, True)),
    ],
)
def test_which_norms_a_block_has(family: str, present: tuple[bool, ...]) -> None:
    block = load_model(tiny_model(family)).block(0)
    norms = (block.attn_norm, block.attn_post_norm, block.mlp_norm, block.mlp_post_norm)
    assert tuple(norm is not None for norm in norms) == present
    assert not block.parallel


def test_replacing_the_real_modules_by_the_frozen_ones_keeps_the_logits() -> None:
    """In float64 nothing but the norms' float32 arithmetic inside Hugging Face remains."""
    model = load_model(tiny_model("gemma3", dtype=torch.float64))
    ids = torch.tensor([[1, 7, 30, 5, 12, 44]])
    taps = []
    for layer in range(model.n_layers):
        block = model.block(layer)
        taps.append(
            (
                model.attention_pattern_point(layer),
                lambda _, call, a=block.attention: a.apply(call.input, call.outputs[1]),
            )
        )
        for norm in (block.attn_norm, block.attn_post_norm, block.mlp_norm, block.mlp_post_norm):
            assert norm is not None
            taps.append(
                (
                    TapPoint(norm.path, "output"),
                    lambda _, call, n=norm: n.apply(call.input, n.scale(call.input)),
                )
            )
    with model.tapped(taps):
        rebuilt = model.logits(ids)
    torch.testing.assert_close(rebuilt, model.logits(ids), rtol=1e-5, atol=1e-5)
    resid = model.activations(ids, [Site("resid_post", 2)])[Site("resid_post", 2)]
    assert resid.dtype == torch.float64
