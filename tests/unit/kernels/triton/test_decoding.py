"""Sparse decoding against the definition in float64."""

import pytest
import torch

from pellucid.kernels import reference
from pellucid.kernels import triton as kernels
from support.kernel_cases import TOLERANCE, codes, difference, normal


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("n", "num_features", "k", "width"),
    [(1, 1, 1, 1), (13, 5, 5, 7), (3, 600, 9, 33), (2, 4099, 9, 1), (2, 33, 33, 1030)],
)
def test_decode(
    n: int, num_features: int, k: int, width: int, dtype: torch.dtype, device: str
) -> None:
    made = codes(n, num_features, k, seed=0)
    values = made.values.to(dtype)
    weight = normal(num_features, width, seed=1, dtype=dtype)
    found = kernels.decode(values.to(device), made.indices.to(device), weight.to(device))
    assert found.dtype == dtype
    expected = reference.decode(values.double(), made.indices, weight.double())
    assert difference(found, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize(("n", "k"), [(0, 3), (3, 0)])
def test_nothing_decodes_to_zero(n: int, k: int, device: str) -> None:
    indices = torch.zeros(n, k, dtype=torch.int64, device=device)
    found = kernels.decode(indices.float(), indices, torch.ones(4, 2, device=device))
    assert torch.equal(found, torch.zeros(n, 2, device=device))


def test_a_feature_stored_twice_counts_twice(device: str) -> None:
    values = torch.tensor([[1.0, 2.0, 0.0]], device=device)
    indices = torch.tensor([[1, 1, 0]], device=device)
    weight = torch.tensor([[5.0], [7.0]], device=device)
    assert kernels.decode(values, indices, weight).item() == 21.0


def test_rows_beyond_the_reach_of_32_bits(device: str) -> None:
    """Memory that is never touched costs nothing."""
    width = 1030
    weight = torch.empty(2**31 // width + 3, width, dtype=torch.float16, device=device)
    weight[-1] = 2
    indices = torch.tensor([[len(weight) - 1]], device=device)
    values = torch.tensor([[3.0]], dtype=torch.float16, device=device)
    assert (kernels.decode(values, indices, weight) == 6).all()
