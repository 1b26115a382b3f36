"""What a training step changes."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters


@dataclass(slots=True)
class TrainState:
    """Everything that a step changes, of one dictionary.

    Attributes:
        parameters: at unit scale, float32.
        first: Adam's running mean of each gradient.
        second: Adam's running mean of each squared gradient.
        idle_tokens: tokens since each feature last fired.
        steps: updates done.
        cut: running mean of the smallest activation of a batch (see `Chosen.cut`).
        average: running mean of the parameters, if one is kept.
        W_enc_low: copy of W_enc in the encoder's dtype, where that is not float32.
        width: how many candidates of a token the last step had to look for; decides no result.
    """

    parameters: Parameters
    first: Parameters
    second: Parameters
    idle_tokens: Int[Tensor, " F"]
    steps: int
    cut: float
    average: Parameters | None
    W_enc_low: Tensor | None
    width: int = 0

    @classmethod
    def start(cls, config: TrainConfig, parameters: Parameters) -> "TrainState":
        """The state before the first step."""
        return cls(
            parameters,
            first=parameters.zeros_like(),
            second=parameters.zeros_like(),
            idle_tokens=torch.zeros_like(parameters.b_enc, dtype=torch.int64),
            steps=0,
            cut=0.0,
            average=None if config.average is None else parameters.clone(),
            W_enc_low=low_precision(config, parameters),
        )


def low_precision(config: TrainConfig, parameters: Parameters) -> Tensor | None:
    """The copy of W_enc that the encoder multiplies, or None where it is W_enc itself."""
    dtype = config.encoder_dtype()
    return None if dtype == torch.float32 else parameters.W_enc.to(dtype)
