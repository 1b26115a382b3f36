"""The encoder product with maxima of groups, and the codes chosen from it."""

import pytest
import torch

from pellucid.kernels import reference
from pellucid.kernels import triton as kernels
from pellucid.kernels.triton.product import product
from support.kernel_cases import TOLERANCE, difference, normal

LOW = [torch.float16, torch.bfloat16]


def _case(
    n: int, width: int, num_features: int, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        normal(n, width, seed=0, dtype=dtype).to(device),
        normal(num_features, width, seed=1, dtype=dtype).to(device),
        normal(num_features, seed=2, dtype=dtype).to(device),
    )


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize(
    ("n", "width", "num_features", "group"),
    [(1, 1, 5, 2), (13, 7, 600, 64), (70, 33, 1100, 16), (2, 130, 4099, 32)],
)
def test_product_and_maxima(
    n: int, width: int, num_features: int, group: int, dtype: torch.dtype, device: str
) -> None:
    x, weight, bias = _case(n, width, num_features, dtype, device)
    pre, maxima = product(x, weight, bias, group)
    expected = x.double() @ weight.double().T + bias.double()
    assert difference(pre, expected) <= TOLERANCE[dtype]
    groups = torch.nn.functional.pad(pre, (0, -num_features % group), value=float("-inf"))
    assert torch.equal(maxima, groups.unflatten(1, (-1, group)).amax(dim=2))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("n", "width", "num_features", "k"),
    [(1, 1, 9, 9), (13, 33, 600, 1), (5, 7, 4099, 9), (2, 33, 2100, 1)],
)
def test_codes_are_the_largest_of_the_product(
    n: int, width: int, num_features: int, k: int, dtype: torch.dtype, device: str
) -> None:
    x, weight, bias = _case(n, width, num_features, dtype, device)
    values, columns, pre = kernels.linear_relu_topk(x, weight, bias, k)
    expected = x.double() @ weight.double().T + bias.double()
    assert difference(pre, expected) <= TOLERANCE[dtype]
    selected = reference.relu_topk(pre, k)[0]
    assert torch.equal(values.sort(dim=1).values, selected.sort(dim=1).values)
    assert torch.equal(pre.gather(1, columns).clamp_min(0), values)
    assert (columns.diff(dim=1) > 0).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_exact_arithmetic_gives_the_values_of_the_definition(
    dtype: torch.dtype, device: str
) -> None:
    """Products of small whole numbers are exact in every dtype, so nothing may differ at all."""
    x, weight, bias = (tensor.round() for tensor in _case(9, 17, 4099, torch.float64, device))
    arguments = (x.to(dtype), weight.to(dtype), bias.to(dtype))
    values, _, pre = kernels.linear_relu_topk(*arguments, 7)
    expected = reference.linear_relu_topk(x, weight, bias, 7)
    assert torch.equal(pre.double(), expected[2])
    assert torch.equal(values.double().sort(dim=1).values, expected[0].sort(dim=1).values)


def test_nan_in_a_weight_is_found_in_its_group(device: str) -> None:
    x, weight, bias = _case(3, 5, 4099, torch.bfloat16, device)
    weight[2077] = float("nan")
    values, columns, _ = kernels.linear_relu_topk(x, weight, bias, 2)
    assert (columns == 2077).any(dim=1).all()
    assert values.isnan().any(dim=1).all()
