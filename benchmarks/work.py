"""How much arithmetic a trace does, how much it must do, and how fast this machine could do it.

Done: every matrix product of a run is recorded as torch dispatches it. Must: the multiply-adds of
the pull-back, each target over its own causal cone, from the formulas below. Rate: a sample of the
recorded products is done again, bare, on fresh contiguous matrices; what they reach is the rate
"on the same shapes". Floor seconds are what must be done over that rate.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.models import BenchmarkSize
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.tables import FEATURE, LOGIT
from pellucid.replacement.local import LocalReplacement

SAMPLES = 160
SMALLEST_WINDOW_S = 0.01  # a product is repeated until it has taken this long

_aten = torch.ops.aten
_OPERANDS = {  # operator -> where its two matrices stand among the arguments
    _aten.mm.default: 0,
    _aten.mm.out: 0,
    _aten.bmm.default: 0,
    _aten.bmm.out: 0,
    _aten.addmm.default: 1,
    _aten.addmm.out: 1,
    _aten.addmm_.default: 1,
    _aten.baddbmm.default: 1,
    _aten.baddbmm_.default: 1,
}


class Product(NamedTuple):
    """`batch` products of a [rows, inner] with an [inner, columns] matrix; 0 when not batched."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def multiply_adds(self) -> int:
        """How many multiply-adds it takes."""
        return max(self.batch, 1) * self.rows * self.inner * self.columns


class ProductRecorder(TorchDispatchMode):
    """Counts the matrix products that run while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        start = _OPERANDS.get(func)
        if start is not None:
            left, right = args[start].shape, args[start + 1].shape
            batch = left[0] if len(left) == 3 else 0
            self.products[Product(batch, left[-2], left[-1], right[-1])] += 1
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The arithmetic of one run; counts in multiply-adds, rate in multiply-adds a second.

    Attributes:
        done: of all matrix products that ran.
        must: of the pull-back, each target over its own cone.
        bare_s: processor seconds that the products would take bare, from the sample.
        rate: done / bare_s.
        floor_s: must / rate.
    """

    done: int
    must: int
    bare_s: float
    rate: float
    floor_s: float


def work_of(run: Callable[[], object], must: int) -> Work:
    """Run once with every product recorded, then measure the rate on a sample of them."""
    with ProductRecorder() as recorder:
        run()
    done = sum(product.multiply_adds * count for product, count in recorder.products.items())
    bare_s = bare_seconds(recorder.products)
    rate = done / bare_s
    return Work(done=done, must=must, bare_s=bare_s, rate=rate, floor_s=must / rate)


def bare_seconds(products: Counter[Product], *, seed: int = 0) -> float:
    """Processor seconds of the products alone, estimated from `SAMPLES` of them.

    They are drawn with chances in proportion to their share of the arithmetic, so the mean of
    seconds per multiply-add over the draws estimates that of the whole.
    """
    kinds = list(products)
    weights = [kind.multiply_adds * products[kind] for kind in kinds]
    drawn = Counter(random.Random(seed).choices(kinds, weights, k=SAMPLES))
    per_unit = sum(
        count * _seconds(product) / product.multiply_adds for product, count in drawn.items()
    )
    return per_unit / SAMPLES * sum(weights)


def _seconds(product: Product) -> float:
    """Processor seconds of one bare product: the fastest of three short windows."""
    lead = (product.batch,) if product.batch else ()
    left = torch.randn(*lead, product.rows, product.inner)
    right = torch.randn(*lead, product.inner, product.columns)
    out = torch.empty(*lead, product.rows, product.columns)
    multiply = torch.bmm if product.batch else torch.mm
    best = float("inf")
    for _ in range(3):
        best = min(best, _window(multiply, left, right, out))
    return best


def _window(multiply: Callable[..., Tensor], left: Tensor, right: Tensor, out: Tensor) -> float:
    calls, start = 0, time.process_time()
    while True:
        multiply(left, right, out=out)
        calls += 1
        spent = time.process_time() - start
        if spent >= SMALLEST_WINDOW_S:
            return spent / calls


def necessary(graph: AttributionGraph, local: LocalReplacement, size: BenchmarkSize) -> int:
    """Multiply-adds that the rows of a graph must take on the benchmark's sequential models.

    A target read before layer l's MLP at position p has a cone of W = p + 1 positions. With S_j the
    vectors that layer j wrote there (features, one error and one constant a position), d the width
    and H e = d the heads' width together:

        own attention      2 d d + W d        a single position's gradient sends one vector a head
        each layer j below S_j d              products with what the MLP wrote
                           2 W d d            through W_O, then W_V
                           W (W + 1) / 2 d    through the causal pattern
        layer 0's attention: instead the products with its tokens' images, W (W + 3) / 2 d, where
                           that is less
        tokens             2 W d

    A logit starts above the last MLP, at one position of it.
    """
    d, n_layers = size.d_model, size.layers
    written = np.array(
        [
            np.bincount(part.active.positions.numpy(), minlength=len(local.run.ids)) + 2
            for part in local.layers
        ]
    )
    written_before = written.cumsum(axis=1)  # [layer, position], the position included
    total = 0
    for layer, position in zip(*_targets(graph), strict=True):
        window = position + 1
        through = 2 * window * d * d + window * (window + 1) // 2 * d
        images = window * (window + 3) // 2 * d
        single = 2 * d * d + window * d
        total += 2 * window * d
        own = layer
        if layer == n_layers:  # a logit: one position of the last MLP, then its attention
            own = n_layers - 1
            total += int(written[own, position]) * d
        total += min(single, images) if own == 0 else single
        for below in range(own):
            total += int(written_before[below, position]) * d
            total += min(through, images) if below == 0 else through
    return total


def _targets(graph: AttributionGraph) -> tuple[list[int], list[int]]:
    chosen = graph.nodes.is_kind(FEATURE, LOGIT)
    layer, position = graph.nodes.layer[chosen], graph.nodes.position[chosen]
    return layer.tolist(), position.tolist()
