"""What is trained: the tensors of one dictionary, at unit scale."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.training.config import TrainConfig
from pellucid.training.scales import Scales


@dataclass(slots=True)
class Parameters:
    """The tensors of a dictionary (see `dictionaries.base.Dictionary`), or a moment of each."""

    W_enc: Float[Tensor, "F d_in"]
    b_enc: Float[Tensor, " F"]
    W_dec: Float[Tensor, "F d_out"]
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name; no W_skip where there is none."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Parameters":
        """The inverse of `tensors`."""
        return cls(
            W_enc=tensors["W_enc"],
            b_enc=tensors["b_enc"],
            W_dec=tensors["W_dec"],
            b_dec=tensors["b_dec"],
            W_skip=tensors.get("W_skip"),
        )

    def zeros_like(self) -> "Parameters":
        """Zeros of the same shapes."""
        return self.from_tensors({n: torch.zeros_like(t) for n, t in self.tensors().items()})

    def unscaled(self, scales: Scales) -> "Parameters":
        """The same dictionary for raw activations: the scales folded into new tensors."""
        ratio = scales.read / scales.write
        return Parameters(
            W_enc=self.W_enc * scales.read,
            b_enc=self.b_enc.clone(),
            W_dec=self.W_dec / scales.write,
            b_dec=self.b_dec / scales.write,
            W_skip=None if self.W_skip is None else self.W_skip * ratio,
        )


def initial_parameters(
    config: TrainConfig,
    x: Float[Tensor, "N d_in"],
    y: Float[Tensor, "N d_out"],
    generator: torch.Generator,
) -> Parameters:
    """Parameters to start from, given a first batch at unit scale.

    Encoder rows are random unit vectors. The decoder is 0 for a transcoder and a copy of the
    encoder for an SAE; b_dec is the mean output and b_enc centres the input (EleutherAI sparsify).
    The skip path starts at 0.
    """
    num_features = config.features(y.shape[1])
    W_enc = torch.randn(num_features, x.shape[1], generator=generator)
    W_enc = torch.nn.functional.normalize(W_enc).to(x.device)
    b_dec = y.mean(dim=0)
    if config.kind == "sae":
        W_dec, b_enc = W_enc.clone(), x.new_zeros(num_features)
    else:
        W_dec, b_enc = x.new_zeros(num_features, y.shape[1]), -(W_enc @ x.mean(dim=0))
    has_skip = config.kind == "skip-transcoder"
    W_skip = x.new_zeros(y.shape[1], x.shape[1]) if has_skip else None
    return Parameters(W_enc, b_enc, W_dec, b_dec, W_skip)
