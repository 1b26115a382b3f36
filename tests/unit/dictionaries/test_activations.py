"""Activations against their definitions, written densely."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import ConfigError, DictionaryError
from pellucid.dictionaries import ACTIVATIONS, JumpReLU, ReLU, SignedTopK, TopK


def _pre(n: int, num_features: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, num_features, generator=generator, dtype=torch.float64)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_relu_is_every_positive_value(n: int, num_features: int, seed: int) -> None:
    pre = _pre(n, num_features, seed)
    assert torch.equal(ReLU()(pre).dense(), pre.clamp_min(0))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
def test_jumprelu_is_every_value_above_its_threshold(n: int, num_features: int, seed: int) -> None:
    pre, threshold = _pre(n, num_features, seed), _pre(1, num_features, seed + 1)[0].abs()
    assert torch.equal(JumpReLU(threshold)(pre).dense(), pre.where(pre > threshold, 0))


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_topk_is_the_k_largest_positive_values(
    n: int, num_features: int, k: int, seed: int
) -> None:
    k = min(k, num_features)
    pre = _pre(n, num_features, seed)
    kth = pre.sort(dim=1, descending=True).values[:, k - 1 : k]
    codes = TopK(k)(pre)
    assert codes.values.shape == (n, k)
    assert torch.equal(codes.dense(), pre.where((pre >= kth) & (pre > 0), 0))


def test_a_token_with_nothing_active_has_empty_codes() -> None:
    codes = ReLU()(-torch.ones(3, 4))
    assert codes.values.shape == (3, 0)
    assert torch.equal(codes.dense(), torch.zeros(3, 4))


def test_topk_without_enough_positive_values_pads_with_zero() -> None:
    codes = TopK(3)(torch.tensor([[1.0, -1.0, -2.0, -3.0]]))
    assert codes.l0().tolist() == [1]


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (TopK(8), "k is 8 but there are only 7 features; lower k or add features"),
        (JumpReLU(torch.zeros(6)), r"threshold has shape \(6,\) but there are 7 features"),
    ],
)
def test_an_activation_that_does_not_fit_says_so(activation: TopK | JumpReLU, message: str) -> None:
    with pytest.raises(DictionaryError, match=message):
        activation.check(7)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(DictionaryError, match="k is 0; keep at least one feature"):
        TopK(0)


def test_an_unknown_activation_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="'gelu'; use one of topk, signed-topk, relu, jumprelu"):
        ACTIVATIONS["gelu"]


def test_signed_topk_keeps_the_largest_whatever_their_sign() -> None:
    pre = torch.tensor([[-3.0, -1.0, -2.0, 5.0], [-1.0, -2.0, -3.0, -4.0], [4.0, 3.0, 2.0, 1.0]])
    expected = [[0.0, -1.0, 0.0, 5.0], [-1.0, -2.0, 0.0, 0.0], [4.0, 3.0, 0.0, 0.0]]
    assert SignedTopK(2)(pre).dense().tolist() == expected
    with pytest.raises(DictionaryError, match="k is 0"):
        SignedTopK(0)
