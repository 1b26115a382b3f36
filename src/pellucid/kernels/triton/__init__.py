"""The kernels in Triton, for GPUs: the functions of `reference.py`, not differentiable.

Imported only where Triton is installed. With TRITON_INTERPRET=1 in the environment before Triton
is first imported, they run on CPU tensors through its interpreter, slowly; that is how they are
tested without a GPU. Sums are taken in float32 (float64 for float64), without atomics, so that a
result is the same on every run, but for the roundings of the product, whose tile is tried out.
"""

from pellucid.kernels.triton.decoding import decode
from pellucid.kernels.triton.gradients import row_gradients
from pellucid.kernels.triton.product import linear_relu_topk
from pellucid.kernels.triton.runtime import INTERPRETED
from pellucid.kernels.triton.topk import relu_topk

__all__ = ["INTERPRETED", "decode", "linear_relu_topk", "relu_topk", "row_gradients"]
