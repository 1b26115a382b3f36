"""What dictionaries write layer by layer, and the gradients of a replaced model."""

import pytest
import torch

from pellucid.core.types import Site
from pellucid.dictionaries.activations import ReLU
from pellucid.models.load import load_model
from pellucid.replacement.functions import mlp_functions
from pellucid.replacement.model import ReplacementModel
from pellucid.replacement.outputs import layer_outputs
from support.tiny_dictionaries import tiny_set
from support.tiny_models import tiny_model, word_tokenizer

# Of the families, GPT-2 alone computes norms and attention in float64 when asked to.
MODEL = load_model(tiny_model("gpt2", dtype=torch.float64), word_tokenizer())
IDS = MODEL.encode_ids([11, 42, 7, 42, 30])[None]


@pytest.mark.parametrize("kind", ["plt", "skip", "clt", "clt-mid", "clt-skip"])
def test_layer_outputs_are_what_replaces_the_mlps(kind: str) -> None:
    dictionaries = tiny_set(MODEL, [kind] * 3, ReLU())
    values = MODEL.activations(IDS, [dictionary.read_site for dictionary in dictionaries])
    rows = {site: value[0] for site, value in values.items()}
    functions = mlp_functions(dictionaries, dictionaries.layers)
    for layer, output in layer_outputs(dictionaries, rows).items():
        x = rows[dictionaries[layer].read_site]
        torch.testing.assert_close(output.written, functions[layer](x))
        torch.testing.assert_close(output.codes.dense(), dictionaries[layer].encode(x).dense())


def test_a_cross_layer_set_with_a_gap_writes_across_it() -> None:
    dictionaries = tiny_set(MODEL, ["clt", None, "clt"])
    x = torch.randn(4, MODEL.d_model, dtype=torch.float64)
    rows = {Site("mlp_in", layer): x for layer in range(3)}
    lower, upper = dictionaries[0], dictionaries[2]
    expected = upper(x) + lower.decode(lower.encode(x), 2)
    torch.testing.assert_close(layer_outputs(dictionaries, rows)[2].written, expected)


@pytest.mark.parametrize("kind", ["plt", "skip", "clt-mid", "clt-skip"])
def test_gradients_through_the_replaced_model_are_finite_differences(kind: str) -> None:
    dictionaries = tiny_set(MODEL, [kind] * 3)
    generator = torch.Generator().manual_seed(0)

    def loss() -> torch.Tensor:
        logits = ReplacementModel(MODEL, dictionaries).tracked_logits(IDS)
        return torch.log_softmax(logits, dim=-1)[0, :, 9].sum()

    for dictionary in dictionaries:
        dictionary.requires_grad_(True)
    loss().backward()
    for layer, dictionary in dictionaries.dictionaries.items():
        for name, tensor in dictionary.tensors().items():
            direction = torch.randn(tensor.shape, generator=generator).double()
            ends = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    tensor.add_(step * direction)
                    ends.append(float(loss()))
                    tensor.sub_(step * direction)
            slope = (ends[0] - ends[1]) / 2e-6
            assert tensor.grad is not None
            expected = float((tensor.grad * direction).sum())
            assert slope == pytest.approx(expected, rel=1e-5, abs=1e-7), f"{name} of {layer}"


def test_logits_track_nothing() -> None:
    dictionaries = tiny_set(MODEL, ["plt"] * 3)
    for dictionary in dictionaries:
        dictionary.requires_grad_(True)
    replacement = ReplacementModel(MODEL, dictionaries)
    assert not replacement.logits(IDS).requires_grad
    assert replacement.tracked_logits(IDS).requires_grad
    torch.testing.assert_close(replacement.logits(IDS), replacement.tracked_logits(IDS))
