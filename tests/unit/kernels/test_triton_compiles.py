"""The Triton kernels compile for real GPUs, and fit them, with what their callers launch.

Triton compiles for a GPU that is not there, down to its machine code. Tensors without memory stand
for large ones.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is made for Linux only")

from pellucid.kernels import triton as kernels
from pellucid.kernels.pairs import FeaturePairs
from pellucid.kernels.triton import decoding, gradients, product, selection
from support.triton_launches import Launches, recorded, resources

pytestmark = pytest.mark.skipif(kernels.INTERPRETED, reason="interpreted, so not compiled")
A100, H100 = 80, 90
SHARED_MEMORY = {A100: 166_912, H100: 232_448}  # bytes that one program may use


def _meta(*shape: int, dtype: torch.dtype = torch.float32) -> Any:
    return torch.empty(*shape, dtype=dtype, device="meta")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing found compiled, nothing left behind."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def assert_fits(launches: Launches, capability: int, **more: Any) -> list[Any]:
    made = list(launches.compiled(capability, **more))
    assert made
    for each in made:
        assert resources(each)["stack"] == 0, "no register is spilled"
        assert each.metadata.shared <= SHARED_MEMORY[capability]
    return made


@pytest.mark.parametrize(("num_features", "k"), [(1, 1), (24_576, 32)])
def test_selection(num_features: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        recorded(monkeypatch, selection, "select_kernel") as select,
        recorded(monkeypatch, selection, "maxima_kernel") as maxima,
    ):
        kernels.relu_topk(_meta(512, num_features, dtype=torch.bfloat16), k)
    assert (len(select.calls), len(maxima.calls)) == ((1, 0) if num_features == 1 else (2, 1))
    assert_fits(select, H100)
    if maxima.calls:
        assert_fits(maxima, H100)


@pytest.mark.parametrize("width", [1, 768])
def test_decoding_and_gradients(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    n, k, num_features = 2048, 32, 24_576
    index = torch.int64
    with recorded(monkeypatch, decoding, "decode_kernel") as decode:
        kernels.decode(_meta(n, k), _meta(n, k, dtype=index), _meta(num_features, width))
    assert_fits(decode, H100)
    pairs = FeaturePairs(
        values=_meta(n * k),
        targets=_meta(n * k, dtype=index),
        sources=_meta(n * k, dtype=index),
        offsets=_meta(num_features + 1, dtype=index),
    )
    with (
        recorded(monkeypatch, gradients, "pairs_kernel") as of_pairs,
        recorded(monkeypatch, gradients, "parts_kernel") as of_parts,
    ):
        kernels.row_gradients(pairs, _meta(n, width), _meta(n, width), _meta(num_features, width))
    assert_fits(of_pairs, H100)
    assert len(of_parts.calls) == 3
    assert_fits(of_parts, H100)


@pytest.mark.parametrize(
    ("capability", "tile", "instruction"),
    [(A100, product.TILES[1], "mma.sync"), (H100, product.TILES[0], "wgmma.mma_async")],
)
def test_product(
    capability: int,
    tile: tuple[int, int, int, int, int],
    instruction: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It multiplies on tensor cores, with tiles as they are tried on that GPU."""
    low = torch.bfloat16
    launches = Launches(product.product_kernel)
    monkeypatch.setattr(product, "_tuned", lambda: launches)
    weight, bias = _meta(24_576, 768, dtype=low), _meta(24_576, dtype=low)
    product.product(_meta(2048, 768, dtype=low), weight, bias, 32)
    n, f, d, warps, stages = tile
    blocks = {"BLOCK_N": n, "BLOCK_F": f, "BLOCK_D": d, "TOGETHER": 8}
    (made,) = assert_fits(launches, capability, **blocks, num_warps=warps, num_stages=stages)
    assert instruction in made.asm["ptx"]
