"""JumpReLU: thresholds learnt with straight-through gradients (Rajamanoharan et al. 2024).

With a = pre H(pre - theta) and K the rectangle of width epsilon and area 1 about 0, the derivatives
by theta are replaced by

    da / dtheta          = -theta K(pre - theta)
    dH(pre - theta) / dtheta = -K(pre - theta)

and the penalty is sparsity * (L0 / k - 1)^2, L0 the mean over tokens of sum_f H(pre_f - theta_f).
"""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import SparseCodes
from pellucid.dictionaries.activations import Activation, JumpReLU, pack_active
from pellucid.distributed.team import Teams
from pellucid.training.activations.base import ActivationRule, Candidates, Chosen, Encoder
from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters

_SPARSITY = 0.1
_BANDWIDTH = 0.5


@final
class JumpReLURule(ActivationRule):
    """Every feature has a threshold; what lies within half a bandwidth of it teaches it."""

    name = "jumprelu"

    def start(self, parameters: Parameters, cut: Callable[[], float]) -> None:
        """Every threshold such that the first batch has k active features a token."""
        parameters.threshold = torch.full_like(parameters.b_enc, cut())

    def candidates(
        self, config: TrainConfig, inputs: Float[Tensor, "N d"], encoder: Encoder, width: int
    ) -> tuple[Candidates, Float[Tensor, "N F"]]:
        """All that is above or just below its threshold."""
        assert encoder.threshold is not None
        pre = encoder.pre_activations(inputs)
        lowest = (encoder.threshold - _bandwidth(config) / 2).clamp_min(0).to(pre.dtype)
        found = pack_active(pre, pre > lowest)
        return (found.values, found.indices), pre

    def settle(
        self, config: TrainConfig, found: SparseCodes, threshold: Tensor | None, teams: Teams
    ) -> Chosen:
        """What is above its threshold."""
        assert threshold is not None
        above = found.values - threshold[found.indices]
        stored = found.values > 0
        near = stored & (above.abs() < _bandwidth(config) / 2)
        codes, learning = (
            SparseCodes(values, found.indices, found.num_features)
            for values in (found.values.where(above > 0, 0), near.to(found.values.dtype))
        )
        return Chosen(codes, near=learning)

    def threshold_gradient(
        self,
        config: TrainConfig,
        threshold: Float[Tensor, " F"],
        aligned: Float[Tensor, " F"],
        near: Float[Tensor, " F"],
        l0: float,
    ) -> Float[Tensor, " F"]:
        """See the module."""
        weight = _SPARSITY if config.sparsity is None else config.sparsity
        slope = weight * 2 * (l0 / config.k - 1) / config.k
        return -(threshold * aligned + slope * near) / _bandwidth(config)

    def activation(self, config: TrainConfig, parameters: Parameters, cut: float) -> Activation:
        """JumpReLU."""
        assert parameters.threshold is not None
        return JumpReLU(parameters.threshold.clone())


def _bandwidth(config: TrainConfig) -> float:
    return _BANDWIDTH if config.bandwidth is None else config.bandwidth
