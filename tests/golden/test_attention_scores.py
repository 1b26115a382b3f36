"""Attention rebuilt from query and key weights is the attention that the real module computed."""

import pytest
import torch
from transformers.models.llama import modeling_llama

from pellucid.models.load import load_model
from pellucid.models.taps import TapPoint
from support.tiny_models import FAMILIES, tiny_model

IDS = torch.tensor([[1, 11, 42, 7, 42, 30, 9, 55, 23]])
TRAINED_LENGTH = 16
SCALED = {
    "llama3": {
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": TRAINED_LENGTH,
    },
    "yarn": {
        "beta_fast": 8.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": TRAINED_LENGTH,
    },
    "dynamic": {},
}


def observed(model, layer, ids):
    """What the attention module of a layer is given, and the pattern it computes."""
    kept = {}

    def keep(_value, call):
        kept["input"], kept["pattern"] = call.input[0], call.outputs[1][0]

    point = TapPoint(model.query_key(layer).path, "output")
    with model.tapped([(point, keep)]):
        model.logits(ids)
    return kept["input"], kept["pattern"]


def window_of(model, layer):
    """How far back a layer may look, from its configuration; None for all the way."""
    config = model.module.config
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if window is None or (types is not None and types[layer] != "sliding_attention"):
        return None
    return window


def rebuilt_pattern(model, layer, x):
    """Scores, softcap, the mask written out by hand, and the softmax."""
    length = len(x)
    weights = model.query_key(layer)
    scores = weights.capped(weights.scores(x, model.rotation(layer, length)))
    back = torch.arange(length)[:, None] - torch.arange(length)
    window = window_of(model, layer)
    seen = (back >= 0) & (back < (length if window is None else window))
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pattern_is_rebuilt_from_its_pieces(family):
    model = load_model(tiny_model(family))
    for layer in range(model.n_layers):
        x, pattern = observed(model, layer, IDS)
        assert float((rebuilt_pattern(model, layer, x) - pattern).abs().max()) <= 1e-5
        flat = pattern.new_zeros(pattern.shape)
        assert not torch.allclose(flat, pattern), "an empty pattern proves nothing"


@pytest.mark.parametrize("kind", SCALED)
def test_scaled_rotary_angles_are_the_models_own(kind):
    rope = SCALED[kind] | {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    module = tiny_model("llama", rope_parameters=rope, max_position_embeddings=TRAINED_LENGTH)
    model = load_model(module)
    ids = torch.randint(3, 60, (1, 40), generator=torch.Generator().manual_seed(0))
    x, pattern = observed(model, 1, ids)
    assert float((rebuilt_pattern(model, 1, x) - pattern).abs().max()) <= 1e-5
    plain = load_model(tiny_model("llama")).rotation(1, 40)
    assert not torch.allclose(model.rotation(1, 40).cos, plain.cos)


def test_a_rotation_is_that_of_transformers():
    model = load_model(tiny_model("llama"))
    rotation = model.rotation(0, 5)
    x = torch.randn(5, 4, 8)
    expected, _ = modeling_llama.apply_rotary_pos_emb(
        x.transpose(0, 1)[None], x.transpose(0, 1)[None], rotation.cos[None], rotation.sin[None]
    )
    torch.testing.assert_close(rotation.apply_all(x), expected[0].transpose(0, 1))
    torch.testing.assert_close(rotation.apply(x[3, 1], 3), rotation.apply_all(x)[3, 1])


def test_without_rotary_embeddings_there_is_no_rotation():
    assert load_model(tiny_model("gpt2")).rotation(0, 5) is None


def test_layers_of_two_types_have_two_rotations():
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e2},
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
    }
    model = load_model(tiny_model("gemma3", rope_parameters=rope))
    assert torch.equal(model.rotation(0, 6).cos, model.rotation(2, 6).cos)
    assert not torch.allclose(model.rotation(0, 6).cos, model.rotation(1, 6).cos)
    for layer in range(3):
        x, pattern = observed(model, layer, IDS)
        assert float((rebuilt_pattern(model, layer, x) - pattern).abs().max()) <= 1e-5
