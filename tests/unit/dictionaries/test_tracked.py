"""Dictionaries under autograd: gradients are those of dense mathematics, for every kind."""

import pytest
import torch

from pellucid.dictionaries import Dictionary
from support.dictionaries import ACTIVATION_NAMES, KINDS, random_dictionary


def dense(dictionary: Dictionary, x: torch.Tensor) -> torch.Tensor:
    """The whole reconstruction by dense matrices, the active features taken as given."""
    with torch.no_grad():
        active = dictionary.encode(x).dense() != 0
    pre = dictionary.encoder_input(x) @ dictionary.W_enc.T + dictionary.b_enc
    output = torch.where(active, pre, 0.0) @ dictionary.decoder() + dictionary.b_dec
    return output if dictionary.W_skip is None else output + x @ dictionary.W_skip.T


@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_tensor_and_of_the_input(kind: str, activation: str) -> None:
    dictionary = random_dictionary(kind, activation, dtype=torch.float64)
    x = torch.randn(9, dictionary.d_in, generator=torch.Generator().manual_seed(1)).double()
    x.requires_grad_()
    names = [name for name in dictionary.tensors() if "threshold" not in name]
    tensors = [x, *(getattr(dictionary, name).requires_grad_() for name in names)]
    upstream = torch.randn(9, dictionary.d_out).double()
    expected = torch.autograd.grad(dense(dictionary, x), tensors, upstream)
    found = torch.autograd.grad(dictionary(x), tensors, upstream)
    for name, mine, true in zip(["x", *names], found, expected, strict=True):
        torch.testing.assert_close(mine, true, msg=name)


def test_a_token_without_active_features_has_no_gradient() -> None:
    dictionary = random_dictionary("transcoder", "relu", dtype=torch.float64)
    dictionary.b_enc.fill_(-100.0)
    x = torch.randn(3, dictionary.d_in).double().requires_grad_()
    assert dictionary.encode(x).values.shape[1] == 0
    dictionary.b_dec.requires_grad_()
    output = dictionary(x)
    torch.testing.assert_close(output, dictionary.b_dec.expand(3, -1))
    output.sum().backward()
