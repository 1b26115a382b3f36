"""What is trained: the tensors of one dictionary, at unit scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.training.scales import Scales


@dataclass(slots=True)
class Parameters:
    """The tensors of a dictionary (see `dictionaries.base.Dictionary`), or a moment of each.

    A row of W_dec is what a feature writes to all its slots, one after the other. `threshold` is a
    JumpReLU's.
    """

    W_enc: Float[Tensor, "F d_in"]
    b_enc: Float[Tensor, " F"]
    W_dec: Float[Tensor, "F slots_d_out"]
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    threshold: Float[Tensor, " F"] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name; only those that there are."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Parameters":
        """The inverse of `tensors`."""
        return cls(**tensors)

    def clone(self) -> "Parameters":
        """A copy."""
        return self.from_tensors({n: t.clone() for n, t in self.tensors().items()})

    def zeros_like(self) -> "Parameters":
        """Zeros of the same shapes."""
        return self.from_tensors({n: torch.zeros_like(t) for n, t in self.tensors().items()})

    def unscaled(self, scales: Scales, later: Sequence[float] = ()) -> "Parameters":
        """The same dictionary for raw activations: the scales folded into new tensors.

        Args:
            scales: of what it reads and of its first slot.
            later: the scales of its further slots.
        """
        slots = self.W_dec.new_tensor([scales.write, *later]).repeat_interleave(len(self.b_dec))
        folded = self.clone()
        folded.W_enc *= scales.read
        folded.W_dec /= slots
        folded.b_dec /= scales.write
        if folded.W_skip is not None:
            folded.W_skip *= scales.read / scales.write
        return folded
