"""Activations: from dense pre-activations [N, F] to sparse codes.

TopK:       the k largest of max(pre, 0) at each token (Gao et al. 2024; EleutherAI sparsify).
SignedTopK: the k largest of pre at each token, negative ones too (circuit-tracer's TopK).
ReLU:       max(pre, 0), as many as there are.
JumpReLU:   pre where pre > threshold, else 0, one threshold a feature (Rajamanoharan et al. 2024).
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pellucid.core.errors import DictionaryError
from pellucid.core.registry import Registry
from pellucid.core.types import SparseCodes
from pellucid.kernels.dispatch import relu_topk

THRESHOLD_KEY = "threshold"


class Activation(nn.Module, ABC):
    """What turns pre-activations into codes; holds its own parameters, if it has any."""

    name: ClassVar[str]

    @abstractmethod
    def forward(self, pre: Float[Tensor, "N F"]) -> SparseCodes:
        """The codes of dense pre-activations."""

    def alone(
        self, pre: Float[Tensor, " n"], features: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"] | None:
        """Activations of single features; None where they depend on the other features.

        Args:
            pre: pre-activations.
            features: of which feature each is.
        """
        return None

    @abstractmethod
    def check(self, num_features: int) -> None:
        """Raise `DictionaryError` if this activation cannot serve that many features."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The JSON-able settings that, with `tensors()`, rebuild it: `ACTIVATIONS[name](...)`."""

    def tensors(self) -> dict[str, Tensor]:
        """Parameters by name."""
        return {}


class KLargest(Activation):
    """The k largest of something at each token.

    Args:
        k: features kept a token.

    Raises:
        DictionaryError: k < 1.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise DictionaryError(f"k is {k}; keep at least one feature a token")
        self.k = k

    def forward(self, pre: Float[Tensor, "N F"]) -> SparseCodes:
        """Codes with exactly k stored entries."""
        values, indices = self._largest(pre)
        return SparseCodes(values, indices, pre.shape[1])

    def check(self, num_features: int) -> None:
        """k must not exceed the number of features."""
        if self.k > num_features:
            raise DictionaryError(
                f"k is {self.k} but there are only {num_features} features; lower k or add features"
            )

    def settings(self) -> dict[str, Any]:
        """Its k."""
        return {"k": self.k}

    @abstractmethod
    def _largest(self, pre: Float[Tensor, "N F"]) -> tuple[Tensor, Tensor]:
        """Values and features [N, k] of each token."""


@final
class TopK(KLargest):
    """The k largest pre-activations at each token, those that are positive.

    Where fewer than k are, the rest of the stored entries have value 0.
    """

    name = "topk"

    def _largest(self, pre: Float[Tensor, "N F"]) -> tuple[Tensor, Tensor]:
        return relu_topk(pre, self.k)


@final
class SignedTopK(KLargest):
    """The k largest pre-activations at each token, whatever their sign.

    What dictionaries made for circuit-tracer mean by TopK; where at least k pre-activations are
    positive it is `TopK`.
    """

    name = "signed-topk"

    def _largest(self, pre: Float[Tensor, "N F"]) -> tuple[Tensor, Tensor]:
        values, indices = torch.topk(pre, self.k, dim=1, sorted=False)
        return values, indices


@final
class ReLU(Activation):
    """Every positive pre-activation."""

    name = "relu"

    def forward(self, pre: Float[Tensor, "N F"]) -> SparseCodes:
        """Codes with as many stored entries as the most active token needs."""
        return pack_active(pre, pre > 0)

    def alone(self, pre: Float[Tensor, " n"], features: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """max(pre, 0)."""
        return pre.clamp_min(0)

    def check(self, num_features: int) -> None:
        """Any number of features will do."""

    def settings(self) -> dict[str, Any]:
        """It has none."""
        return {}


@final
class JumpReLU(Activation):
    """Every pre-activation above its feature's threshold, unchanged.

    Args:
        threshold: one threshold a feature.
    """

    name = "jumprelu"

    def __init__(self, threshold: Float[Tensor, " F"]) -> None:
        super().__init__()
        self.threshold = nn.Parameter(threshold, requires_grad=False)

    def forward(self, pre: Float[Tensor, "N F"]) -> SparseCodes:
        """Codes with as many stored entries as the most active token needs."""
        return pack_active(pre, pre > self.threshold)

    def alone(self, pre: Float[Tensor, " n"], features: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """pre where it is above its feature's threshold, else 0."""
        return torch.where(pre > self.threshold[features], pre, torch.zeros_like(pre))

    def check(self, num_features: int) -> None:
        """One threshold a feature."""
        if self.threshold.shape != (num_features,):
            raise DictionaryError(
                f"the threshold has shape {tuple(self.threshold.shape)} but there are "
                f"{num_features} features; give one threshold a feature"
            )

    def settings(self) -> dict[str, Any]:
        """All it has is its threshold, a tensor."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The thresholds."""
        return {THRESHOLD_KEY: self.threshold}


ACTIVATIONS: Registry[type[Activation]] = Registry(
    "activation", {cls.name: cls for cls in (TopK, SignedTopK, ReLU, JumpReLU)}
)


def pack_active(pre: Float[Tensor, "N F"], active: Bool[Tensor, "N F"]) -> SparseCodes:
    """Pack the active entries of each row to the left of a [N, K] pair of matrices."""
    rows, columns = active.nonzero(as_tuple=True)
    counts = active.sum(dim=1)
    width = int(counts.max()) if counts.numel() else 0
    starts = counts.cumsum(0) - counts
    slots = torch.arange(rows.shape[0], device=pre.device) - starts[rows]
    values = pre.new_zeros((pre.shape[0], width))
    indices = torch.zeros((pre.shape[0], width), dtype=torch.int64, device=pre.device)
    values[rows, slots] = pre[rows, columns]
    indices[rows, slots] = columns
    return SparseCodes(values, indices, pre.shape[1])
