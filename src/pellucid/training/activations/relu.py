"""ReLU with an L1 penalty on activations times decoder norms (Conerly et al. 2024)."""

from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import SparseCodes
from pellucid.dictionaries.activations import Activation, ReLU, pack_active
from pellucid.distributed.team import Teams
from pellucid.training.activations.base import ActivationRule, Candidates, Chosen, Encoder
from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters

_SPARSITY = 0.05


@final
class ReLURule(ActivationRule):
    """Whatever is positive is active, and pays for it."""

    name = "relu"

    def start(self, parameters: Parameters, cut: Callable[[], float]) -> None:
        """Lower all biases such that the first batch has k active features a token."""
        parameters.b_enc -= cut()

    def candidates(
        self, config: TrainConfig, inputs: Float[Tensor, "N d"], encoder: Encoder, width: int
    ) -> tuple[Candidates, Float[Tensor, "N F"]]:
        """All that is positive."""
        pre = encoder.pre_activations(inputs)
        found = pack_active(pre, pre > 0)
        return (found.values, found.indices), pre

    def settle(
        self, config: TrainConfig, found: SparseCodes, threshold: Tensor | None, teams: Teams
    ) -> Chosen:
        """All of it."""
        return Chosen(found)

    def price(self, config: TrainConfig, d_out: int) -> float:
        """The penalty's weight over the norm that outputs have at unit scale."""
        weight = _SPARSITY if config.sparsity is None else config.sparsity
        return weight / d_out**0.5

    def activation(self, config: TrainConfig, parameters: Parameters, cut: float) -> Activation:
        """ReLU."""
        return ReLU()
