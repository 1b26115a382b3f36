"""What every kernel here shares: whether it is interpreted, block sizes, the type of sums."""

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _probe() -> None:
    pass


INTERPRETED = not isinstance(_probe, triton.runtime.JITFunction)
"""Triton was first imported with TRITON_INTERPRET=1: kernels run on CPU tensors, step by step."""


def sum_type(dtype: torch.dtype) -> Any:
    """The type in which a kernel adds values of `dtype`."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def power_of_two(size: int) -> int:
    """The smallest power of two that is no less than `size`, at least 1."""
    return 1 << max(size - 1, 0).bit_length()


def warps(elements: int) -> int:
    """How many warps share a block, for eight elements a thread: from 4 to 32."""
    return min(max(power_of_two(elements) // 256, 4), 32)
