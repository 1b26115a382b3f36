"""Selection is exact: the values are those of torch.topk, bit for bit, in every dtype."""

import pytest
import torch

from pellucid.kernels import reference
from pellucid.kernels import triton as kernels
from pellucid.kernels.triton import topk
from support.kernel_cases import TOLERANCE, normal


def assert_selected(pre: torch.Tensor, k: int) -> torch.Tensor:
    """Check `relu_topk`; return its columns. Ties leave the choice of columns open, not values."""
    values, columns = kernels.relu_topk(pre, k)
    expected = reference.relu_topk(pre, k)[0]
    assert values.shape == columns.shape == (len(pre), k)
    assert columns.dtype == torch.int64
    assert torch.equal(values.sort(dim=1).values, expected.sort(dim=1).values)
    assert torch.equal(pre.gather(1, columns).clamp_min(0), values)
    assert (columns.diff(dim=1) > 0).all(), "in order, and none twice"
    return columns


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("n", "num_features", "k"),
    [(0, 7, 2), (1, 1, 1), (13, 5, 3), (13, 600, 9), (2, 33, 33), (3, 4099, 4), (1, 4099, 4099)],
)
def test_of_odd_shapes(n: int, num_features: int, k: int, dtype: torch.dtype, device: str) -> None:
    assert_selected(normal(n, num_features, seed=0, dtype=dtype).to(device), k)


def test_winners_wherever_they_are(device: str) -> None:
    """All in one group of columns, each in a group of its own, at the end."""
    k, num_features = 16, 4099
    group = topk.group_size(num_features, k)
    assert group is not None
    places = [torch.arange(k), torch.arange(k) * group + 3, torch.arange(num_features - k, 4099)]
    pre = torch.zeros(len(places), num_features)
    for row, columns in enumerate(places):
        pre[row, columns] = torch.arange(1.0, k + 1)
    found = assert_selected(pre.to(device), k)
    assert [set(row) for row in found.tolist()] == [set(row.tolist()) for row in places]


@pytest.mark.parametrize("num_features", [40, 4099])
def test_of_equal_values_the_first_are_taken(num_features: int, device: str) -> None:
    found = assert_selected(torch.ones(2, num_features, device=device), 9)
    assert found.tolist() == [list(range(9))] * 2


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_special_values(dtype: torch.dtype, device: str) -> None:
    """Signs, infinities, the smallest numbers, and too few positive values.

    Triton's interpreter reads bfloat16 below the smallest normal number as 0, which is no fault of
    the kernel.
    """
    info = torch.finfo(dtype)
    line = [float("inf"), info.max, 1.0, info.tiny, 0.0, -0.0, -info.tiny, -1.0, info.min]
    line += [float("-inf")] if dtype == torch.bfloat16 else [float("-inf"), info.tiny / 4]
    pre = torch.tensor([line, line[::-1]], dtype=dtype, device=device)
    for k in (1, 3, 5, 8, len(line)):
        assert_selected(pre, k)


@pytest.mark.parametrize("num_features", [50, 2100])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_nan_counts_as_the_largest(num_features: int, dtype: torch.dtype, device: str) -> None:
    pre = normal(3, num_features, seed=1, dtype=dtype)
    pre[0, 37] = float("nan")
    pre[1, 5] = -float("nan")
    pre[1, 6] = float("inf")
    values, columns = kernels.relu_topk(pre.to(device), 2)
    assert values.isnan().sum(dim=1).tolist() == [1, 1, 0]
    assert 37 in columns[0].tolist() and set(columns[1].tolist()) == {5, 6}


@pytest.mark.parametrize("k", [1, 32, 128, 256, 2048])
@pytest.mark.parametrize("num_features", [3, 2048, 2049, 24576, 131072, 10**6])
def test_groups_hold_enough_and_fit(num_features: int, k: int) -> None:
    k = min(k, num_features)
    group = topk.group_size(num_features, k)
    if group is None:
        served = num_features <= topk._DIRECT_WIDTH or k > 512 or num_features > 524288
        assert served, "ordinary sizes are grouped"
    else:
        n_groups = -(-num_features // group)
        assert k < n_groups <= topk._LARGEST_BLOCK
        assert k * group <= topk._LARGEST_BLOCK
        assert group & (group - 1) == 0


def test_what_does_not_fit_is_selected_by_torch(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(topk, "_LARGEST_BLOCK", 64)
    pre = normal(3, 4099, seed=2, dtype=torch.float32).to(device)
    values, columns = kernels.relu_topk(pre, 9)
    assert torch.equal(values.sort(dim=1).values, reference.relu_topk(pre, 9)[0].sort(dim=1).values)
    assert torch.equal(pre.gather(1, columns).clamp_min(0), values)


@pytest.mark.parametrize("num_features", [5, 4099])
def test_none_and_more_than_there_are(num_features: int, device: str) -> None:
    pre = torch.ones(2, num_features, device=device)
    assert kernels.relu_topk(pre, 0)[1].shape == (2, 0)
    with pytest.raises(ValueError, match=f"only {num_features} columns to choose from"):
        kernels.relu_topk(pre, num_features + 1)
