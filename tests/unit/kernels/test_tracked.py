"""Sparse encoding and decoding under autograd: every gradient is that of the definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.kernels import dispatch, reference, tracked

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


def _draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _stored(n: int, num_features: int, k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values with padding (0, at indices that repeat) among them."""
    values = _draw(n, k, seed=seed) * (_draw(n, k, seed=seed + 1) > -0.5)
    generator = torch.Generator().manual_seed(seed)
    return values, torch.randint(num_features, (n, k), generator=generator)


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(
    n=st.integers(1, 9),
    num_features=st.integers(1, 40),
    k=st.integers(1, 7),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_gradients_of_decoding_match(
    dtype: torch.dtype, n: int, num_features: int, k: int, width: int, seed: int
) -> None:
    values, indices = _stored(n, num_features, k, seed)
    weight, upstream = _draw(num_features, width, seed=seed + 2), _draw(n, width, seed=seed + 3)

    def gradients(decode, dtype):  # type: ignore[no-untyped-def]
        a, w = (t.detach().to(dtype).requires_grad_() for t in (values, weight))
        output = decode(a, indices, w)
        return output.detach(), *torch.autograd.grad(output, (a, w), upstream.to(dtype))

    expected = gradients(reference.decode, torch.float64)
    found = gradients(tracked.decode, dtype)
    for mine, true in zip(found, expected, strict=True):
        tolerance = TOLERANCE[dtype] * max(1, n)
        torch.testing.assert_close(mine.double(), true, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(
    n=st.integers(1, 9),
    num_features=st.integers(1, 40),
    k=st.integers(1, 7),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_gradients_of_encoding_match(
    dtype: torch.dtype, n: int, num_features: int, k: int, width: int, seed: int
) -> None:
    k = min(k, num_features)
    parts = [_draw(n, width, seed=seed), _draw(num_features, width, seed=seed + 1)]
    parts.append(_draw(num_features, seed=seed + 2))
    upstream = _draw(n, k, seed=seed + 3)
    x, weight, bias = (part.clone().requires_grad_() for part in parts)
    values, indices = reference.relu_topk(torch.nn.functional.linear(x, weight, bias), k)
    expected = torch.autograd.grad(values, (x, weight, bias), upstream)

    tensors = [part.to(dtype).requires_grad_() for part in parts]
    kept = values.detach().to(dtype)
    tied = tracked.encode(*tensors, kept, indices)
    assert torch.equal(tied, kept)
    found = torch.autograd.grad(tied, tensors, upstream.to(dtype))
    for mine, true in zip(found, expected, strict=True):
        tolerance = TOLERANCE[dtype] * max(1, n)
        torch.testing.assert_close(mine.double(), true, rtol=tolerance, atol=tolerance)


def test_gradients_are_those_of_finite_differences() -> None:
    values, indices = _stored(3, 5, 2, seed=0)
    weight = _draw(5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(tracked.decode, (values.requires_grad_(), indices, weight))


def test_nothing_is_kept_of_the_size_of_all_pairs_times_the_width() -> None:
    n, num_features, k, width = 50, 40, 8, 64
    values, indices = _stored(n, num_features, k, seed=0)
    inputs = _draw(n, width, seed=1).requires_grad_()
    weight = _draw(num_features, width, seed=2).requires_grad_()
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (sizes.append(tensor.numel()), tensor)[1], lambda tensor: tensor
    ):
        codes = dispatch.encode(inputs, weight, weight[:, 0], values, indices)
        dispatch.decode(codes, indices, weight)
    assert max(sizes) <= max(n, num_features) * width < n * k * width


def test_second_derivatives_are_refused() -> None:
    values, indices = _stored(3, 5, 2, seed=0)
    weight = _draw(5, 4, seed=1).requires_grad_()
    output = tracked.decode(values, indices, weight).square().sum()
    (gradient,) = torch.autograd.grad(output, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
