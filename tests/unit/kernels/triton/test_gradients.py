"""Every gradient through sparse codes against the definition in float64."""

from dataclasses import replace

import pytest
import torch

from pellucid.core.types import SparseCodes
from pellucid.kernels import reference
from pellucid.kernels import triton as kernels
from pellucid.kernels.pairs import FeaturePairs, RowGradients, pair_by_feature
from pellucid.kernels.triton import gradients
from support.kernel_cases import TOLERANCE, codes, difference, normal


def assert_gradients(
    made: list[SparseCodes], d_in: int, d_out: int, dtype: torch.dtype, device: str
) -> RowGradients:
    n, num_features = len(made[0].values), made[0].num_features
    rounded = [replace(part, values=part.values.to(dtype)) for part in made]
    pairs = pair_by_feature(rounded)
    tensors = (
        normal(len(made) * n, d_out, seed=1, dtype=dtype),
        normal(n, d_in, seed=2, dtype=dtype),
        normal(num_features, d_out, seed=3, dtype=dtype),
    )
    moved = FeaturePairs(
        *(getattr(pairs, name).to(device) for name in ("values", "targets", "sources", "offsets"))
    )
    found = kernels.row_gradients(moved, *(tensor.to(device) for tensor in tensors))
    exact = replace(pairs, values=pairs.values.double())
    expected = reference.row_gradients(exact, *(tensor.double() for tensor in tensors))
    for name, gradient in expected._asdict().items():
        assert getattr(found, name).dtype == dtype
        assert getattr(found, name).shape == gradient.shape
        assert difference(getattr(found, name), gradient) <= TOLERANCE[dtype], name
    return found


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("n", "num_features", "k", "d_in", "d_out"),
    [(1, 1, 1, 1, 1), (13, 5, 5, 7, 33), (13, 33, 9, 33, 1), (2, 9, 1, 600, 7)],
)
def test_odd_shapes(
    n: int, num_features: int, k: int, d_in: int, d_out: int, dtype: torch.dtype, device: str
) -> None:
    assert_gradients([codes(n, num_features, k, seed=0)], d_in, d_out, dtype, device)


def test_many_features_most_without_a_pair(device: str) -> None:
    found = assert_gradients([codes(3, 300, 9, seed=0)], 7, 5, torch.float32, device)
    assert 273 <= int((found.b_enc == 0).sum()) < 300


def test_several_reconstructions_of_the_same_tokens(device: str) -> None:
    made = [codes(7, 9, 3, seed=seed) for seed in range(3)]
    assert_gradients(made, 5, 6, torch.float64, device)


@pytest.mark.parametrize("part", [1, 4, 13, 512])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_feature_active_in_every_token(
    part: int, dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feature 2 has every token, feature 0 exactly one part, feature 1 one pair, feature 3 none."""
    monkeypatch.setattr(gradients, "_PART", part)
    n = 13
    values = normal(n, 3, seed=5).abs()
    values[4:, 1] = 0
    values[1:, 2] = 0
    indices = torch.tensor([[2, 0, 1]]).expand(n, 3).contiguous()
    found = assert_gradients([SparseCodes(values, indices, 4)], 7, 33, dtype, device)
    assert (found.W_dec[3] == 0).all() and (found.W_enc[3] == 0).all()


def test_no_pair_at_all_gives_zeros(device: str) -> None:
    nothing = SparseCodes(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64), 4)
    found = assert_gradients([nothing], 5, 6, torch.float32, device)
    assert all((gradient == 0).all() for gradient in found)


def test_blocks_of_rows_are_blocks_of_the_whole(device: str) -> None:
    pairs = pair_by_feature([codes(9, 11, 3, seed=0)])
    pairs = FeaturePairs(
        pairs.values.to(device),
        pairs.targets.to(device),
        pairs.sources.to(device),
        pairs.offsets.to(device),
    )
    d_y, x, W_dec = (normal(n, 5, seed=n).to(device) for n in (9, 9, 11))
    whole = kernels.row_gradients(pairs, d_y, x, W_dec)
    blocks = [
        kernels.row_gradients(pairs.rows(start, stop), d_y, x, W_dec[start:stop])
        for start, stop in ((0, 4), (4, 11))
    ]
    for name, gradient in whole._asdict().items():
        assert torch.equal(torch.cat([getattr(block, name) for block in blocks]), gradient)


def test_rows_wider_than_a_program_holds_get_the_definition(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "_WIDEST", 4)
    assert_gradients([codes(3, 5, 2, seed=0)], 5, 3, torch.float64, device)


def test_rows_beyond_the_reach_of_32_bits(device: str) -> None:
    """Memory that is never touched costs nothing."""
    width = 1030
    rows = torch.empty(2**31 // width + 3, width, dtype=torch.float16, device=device)
    rows[-1] = 2
    last = torch.tensor([len(rows) - 1], device=device)
    value, offsets = torch.tensor([3.0], device=device).half(), torch.tensor([0, 1], device=device)
    W_dec = torch.full((1, width), 0.125, device=device).half()
    found = kernels.row_gradients(FeaturePairs(value, last, last, offsets), rows, rows, W_dec)
    assert (found.W_dec == 6).all()
    assert found.b_enc.item() == 257.5
    assert (found.W_enc == 515).all()
