"""The ways that the benchmark of kernels times are ways of doing the same."""

import torch

from benchmarks.kernels import ways
from support.kernel_cases import difference


def test_every_way_gives_the_same(device: str) -> None:
    for kernel, each in ways(3, 7, 33, 4, torch.float32, device).items():
        results = {name: way() for name, way in each.items()}
        expected = next(each for name, each in results.items() if name.startswith("definition"))
        for name, result in results.items():
            for found, tensor in zip(_sorted(result), _sorted(expected), strict=False):
                assert difference(found, tensor) <= 1e-6, (kernel, name)


def _sorted(result: torch.Tensor | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Tensors that do not depend on the order in which codes are stored."""
    if isinstance(result, torch.Tensor):
        return [result]
    if result[1].dtype == torch.int64:  # values and columns
        return [result[0].sort(dim=1).values, result[1].sort(dim=1).values]
    return list(result)
