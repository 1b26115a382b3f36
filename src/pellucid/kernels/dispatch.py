"""Which implementation serves the tensors at hand.

Fast ones on the CPU, Triton's on a GPU where Triton is installed, and the definition elsewhere.
They are not differentiable: tensors that autograd tracks are decoded by `tracked.py`, and have
their k largest chosen by the definition.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module, metadata
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import ConfigError
from pellucid.kernels import tracked
from pellucid.kernels.pairs import FeaturePairs, RowGradients

IMPLEMENTATIONS = ("reference", "cpu", "triton")
_OLDEST_TRITON = (3, 4)
_asked: ContextVar[str | None] = ContextVar("asked", default=None)


def relu_topk(pre: Float[Tensor, "N F"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest of max(pre, 0) in each row and their columns, in no promised order."""
    return _implementation(pre).relu_topk(pre, k)


def linear_relu_topk(
    inputs: Float[Tensor, "N D"], weight: Float[Tensor, "F D"], bias: Float[Tensor, " F"], k: int
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"], Float[Tensor, "N F"]]:
    """`relu_topk` of pre = inputs @ weight.T + bias, and pre itself."""
    return _implementation(inputs, weight, bias).linear_relu_topk(inputs, weight, bias, k)


def decode(
    values: Float[Tensor, "N K"], indices: Int[Tensor, "N K"], weight: Float[Tensor, "F D"]
) -> Float[Tensor, "N D"]:
    """Row n is the sum over j of values[n, j] * weight[indices[n, j]]."""
    if is_tracked(values, weight) and _asked.get() is None and values.shape[1]:
        return tracked.decode(values, indices, weight)
    return _implementation(values, weight).decode(values, indices, weight)


def encode(
    inputs: Float[Tensor, "N D"],
    weight: Float[Tensor, "F D"],
    bias: Float[Tensor, " F"],
    values: Float[Tensor, "N K"],
    indices: Int[Tensor, "N K"],
) -> Float[Tensor, "N K"]:
    """Values found without autograd, tied to what they were computed from: see `tracked.encode`."""
    return tracked.encode(inputs, weight, bias, values, indices)


def row_gradients(
    pairs: FeaturePairs,
    output_gradients: Float[Tensor, "M d_out"],
    inputs: Float[Tensor, "N d_in"],
    W_dec: Float[Tensor, "F d_out"],
) -> RowGradients:
    """Gradients of the weights through sparse codes: see `reference.row_gradients`."""
    chosen = _implementation(output_gradients, inputs, W_dec)
    return chosen.row_gradients(pairs, output_gradients, inputs, W_dec)


def is_tracked(*tensors: Tensor) -> bool:
    """Whether autograd follows what is computed from these."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


@contextmanager
def using(name: str) -> Iterator[None]:
    """Have one implementation serve every call within the block, whatever the device.

    Args:
        name: one of `IMPLEMENTATIONS`. "triton" needs tensors on a GPU, or its interpreter
            (TRITON_INTERPRET=1 in the environment before Triton is first imported).

    Raises:
        ConfigError: there is no such implementation, or no Triton to run. Within the block:
            it cannot serve the tensors of a call.
    """
    if name not in IMPLEMENTATIONS:
        raise ConfigError(f"no kernels are named {name!r}; use one of {', '.join(IMPLEMENTATIONS)}")
    if name == "triton" and not _has_triton():
        raise ConfigError(
            "the Triton kernels were asked for, and no Triton of version 3.4 or later is "
            "installed; pip install 'pellucid[gpu]'"
        )
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def _implementation(*tensors: Tensor) -> ModuleType:
    follows = is_tracked(*tensors)
    devices = {tensor.device for tensor in tensors}
    asked = _asked.get()
    if asked is None:
        kinds = {device.type for device in devices}
        if follows or len(devices) > 1:
            asked = "reference"  # which says what is wrong with several devices
        elif kinds == {"cpu"}:
            asked = "cpu"
        elif kinds == {"cuda"} and _has_triton():
            asked = "triton"
        else:
            asked = "reference"
    elif asked != "reference":
        _check(asked, follows, devices)
    return import_module(f"pellucid.kernels.{asked}")


def _check(asked: str, follows: bool, devices: set[torch.device]) -> None:
    """Refuse what the implementation that was asked for cannot do."""
    if follows:
        raise ConfigError(
            f"the {asked} kernels were asked for, and autograd tracks their inputs; "
            "only the reference is differentiable: use torch.no_grad() or ask for 'reference'"
        )
    interpreted = asked == "triton" and import_module("pellucid.kernels.triton").INTERPRETED
    served = "cuda" if asked == "triton" and not interpreted else "cpu"
    if len(devices) > 1 or {device.type for device in devices} != {served}:
        raise ConfigError(
            f"the {asked} kernels were asked for, and the tensors are on "
            f"{', '.join(sorted(map(str, devices)))}; they serve {served} tensors"
            + ("" if served == "cpu" else ", or CPU tensors with TRITON_INTERPRET=1 set at start")
        )


@cache
def _has_triton() -> bool:
    """Whether a Triton is installed that compiles the kernels."""
    try:
        release = metadata.version("triton").split(".")
    except metadata.PackageNotFoundError:
        return False
    return (int(release[0]), int(release[1])) >= _OLDEST_TRITON
