"""Fast kernels against their readable definitions, on odd shapes and in every dtype they serve."""

from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.types import SparseCodes
from pellucid.kernels import cpu, dispatch, reference
from pellucid.kernels.pairs import pair_by_feature

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}


def _normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _codes(n: int, num_features: int, k: int, seed: int) -> SparseCodes:
    pre = _normal(n, num_features, seed=seed)
    return SparseCodes(*reference.relu_topk(pre, k), num_features)


@given(
    n=st.integers(0, 5),
    num_features=st.integers(1, 6000),
    k=st.integers(1, 80),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 9),
)
def test_topk_by_groups_is_exact(
    n: int, num_features: int, k: int, dtype: torch.dtype, seed: int
) -> None:
    k = min(k, num_features)
    pre = _normal(n, num_features, seed=seed, dtype=dtype)
    values, indices = cpu.relu_topk(pre, k)
    expected = reference.relu_topk(pre, k)[0]
    # Ties (common in bfloat16) leave the choice of columns open, not the values.
    assert torch.equal(values.sort(dim=1).values, expected.sort(dim=1).values)
    assert torch.equal(pre.gather(1, indices).clamp_min(0), values)
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("num_features", [513, 4096, 5003])
def test_topk_finds_values_wherever_they_are(num_features: int) -> None:
    """All winners in one group of columns, in as many groups as winners, or at the end."""
    k = 16
    stride = num_features // 8
    places = [
        torch.arange(8).repeat_interleave(2) * stride + torch.arange(2).repeat(8),
        torch.arange(k),
        torch.arange(num_features - k, num_features),
    ]
    for columns in places:
        pre = torch.zeros(1, num_features)
        pre[0, columns] = torch.arange(1.0, k + 1)
        assert set(cpu.relu_topk(pre, k)[1][0].tolist()) == set(columns.tolist())


def test_topk_among_equal_values_keeps_distinct_columns() -> None:
    values, indices = cpu.relu_topk(torch.ones(2, 5000), 40)
    assert torch.equal(values, torch.ones(2, 40))
    assert all(len(set(row)) == 40 for row in indices.tolist())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n", "num_features", "k", "width"), [(1, 1, 1, 1), (7, 33, 5, 13)])
def test_decode_matches(n: int, num_features: int, k: int, width: int, dtype: torch.dtype) -> None:
    codes = _codes(n, num_features, k, seed=0)
    weight = _normal(num_features, width, seed=1)
    found = cpu.decode(codes.values.to(dtype), codes.indices, weight.to(dtype))
    expected = reference.decode(codes.values, codes.indices, weight)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(expected, codes.dense() @ weight)


@given(
    n=st.integers(1, 9),
    num_features=st.integers(3, 50),
    d_in=st.integers(1, 9),
    d_out=st.integers(1, 9),
    parts=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_row_gradients_match(
    n: int, num_features: int, d_in: int, d_out: int, parts: int, seed: int
) -> None:
    codes = [_codes(n, num_features, 3, seed=seed + i) for i in range(parts)]
    pairs = pair_by_feature(codes)
    arguments = (
        _normal(parts * n, d_out, seed=seed),
        _normal(n, d_in, seed=seed + 1),
        _normal(num_features, d_out, seed=seed + 2),
    )
    found = cpu.row_gradients(pairs, *arguments)
    expected = reference.row_gradients(pairs, *arguments)
    for name, tensor in expected._asdict().items():
        torch.testing.assert_close(getattr(found, name), tensor, msg=name)


@given(n=st.integers(1, 9), num_features=st.integers(3, 50), cut=st.integers(0, 50))
def test_row_gradients_of_blocks_are_blocks_of_the_whole(
    n: int, num_features: int, cut: int
) -> None:
    cut = min(cut, num_features)
    pairs = pair_by_feature([_codes(n, num_features, 3, seed=0)])
    gradients, inputs = _normal(n, 4, seed=1), _normal(n, 5, seed=2)
    W_dec = _normal(num_features, 4, seed=3)
    whole = cpu.row_gradients(pairs, gradients, inputs, W_dec)
    blocks = [
        cpu.row_gradients(pairs.rows(start, stop), gradients, inputs, W_dec[start:stop])
        for start, stop in ((0, cut), (cut, num_features))
    ]
    for name, tensor in whole._asdict().items():
        together = torch.cat([getattr(block, name) for block in blocks])
        torch.testing.assert_close(together, tensor, msg=name)


@given(n=st.integers(1, 9), num_features=st.integers(3, 50), parts=st.integers(1, 3))
def test_pairs_hold_every_active_code_once(n: int, num_features: int, parts: int) -> None:
    codes = [_codes(n, num_features, 3, seed=i) for i in range(parts)]
    pairs = pair_by_feature(codes)
    rebuilt = torch.zeros(parts * n, num_features, dtype=torch.float64)
    rebuilt.index_put_((pairs.targets, pairs.features()), pairs.values, accumulate=True)
    assert torch.equal(rebuilt, torch.cat([part.dense() for part in codes]))
    assert torch.equal(pairs.sources, pairs.targets % n)
    assert (pairs.values != 0).all()


def test_tensors_under_autograd_get_what_is_differentiable() -> None:
    codes = _codes(4, 20, 3, seed=0)
    weight = _normal(20, 5, seed=1).requires_grad_()
    dispatch.decode(codes.values, codes.indices, weight).sum().backward()
    assert weight.grad is not None
    pre = _normal(4, 20, seed=2).requires_grad_()
    dispatch.relu_topk(pre, 3)[0].sum().backward()
    assert pre.grad is not None and int((pre.grad != 0).sum()) <= 12


def test_codes_without_entries_decode_to_zero() -> None:
    empty = torch.zeros(3, 0)
    assert torch.equal(dispatch.decode(empty, empty.long(), torch.ones(4, 2)), torch.zeros(3, 2))


@pytest.mark.parametrize("kernels", [reference, cpu, dispatch])
@pytest.mark.parametrize(("n", "width", "num_features", "k"), [(0, 1, 1, 1), (7, 3, 700, 5)])
def test_codes_of_a_product(
    kernels: ModuleType, n: int, width: int, num_features: int, k: int
) -> None:
    x, weight = _normal(n, width, seed=0), _normal(num_features, width, seed=1)
    bias = _normal(num_features, seed=2)
    values, indices, pre = kernels.linear_relu_topk(x, weight, bias, k)
    torch.testing.assert_close(pre, x @ weight.T + bias)
    assert torch.equal(pre.gather(1, indices).clamp_min(0), values)
    assert torch.equal(values.sort().values, reference.relu_topk(pre, k)[0].sort().values)
