"""Inputs of kernels, and how far a fast kernel may be from its definition in float64."""

import torch

from pellucid.core.types import SparseCodes
from pellucid.kernels import reference

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Largest difference beside the largest value: a rounding of the output, and in float32 the sums.

A rounding is at most 2^-11 in float16 and 2^-8 in bfloat16; Triton's interpreter does not round
bfloat16 to nearest, which costs another.
"""


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Random numbers, the same on every device and, rounded, in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def codes(n: int, num_features: int, k: int, seed: int) -> SparseCodes:
    """The k largest of random pre-activations, many of them 0 where k is more than half of F."""
    pre = normal(n, num_features, seed=seed)
    return SparseCodes(*reference.relu_topk(pre, k), num_features)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, beside the largest value expected."""
    if not expected.numel():
        return 0.0
    apart = (found.double().cpu() - expected.double().cpu()).abs().max()
    return float(apart / expected.abs().max().clamp_min(1e-300))
