"""What keeps the number of active features as it was, by activation.

TopK:     its k; nothing is needed.
JumpReLU: the thresholds of a layer are multiplied by one factor, which rises while more features
          are active than were before, and falls while fewer are. A threshold of 0 stays 0.
ReLU:     a penalty on the activations times their decoder rows' norms, whose weight does the same,
          down to 0.

"Before" is what the starting dictionary makes active on the very same inputs.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import SparseCodes
from pellucid.dictionaries.activations import JumpReLU, ReLU, TopK
from pellucid.dictionaries.base import Dictionary

_GAIN = 0.1
"""How much one step answers to L0 being off by 100%."""


class SparsityKeeper:
    """Holds the L0 of one dictionary in training at that of the one it started as.

    Args:
        start: the dictionary as it was.
        trained: the one in training.

    Attributes:
        setting: the logarithm of the thresholds' factor, or the penalty's weight; 0 at the start.

    Raises:
        DictionaryError: an activation whose L0 nothing here can hold.
    """

    def __init__(self, start: Dictionary, trained: Dictionary) -> None:
        if not isinstance(start.activation, (TopK, JumpReLU, ReLU)):
            raise DictionaryError(
                f"nothing keeps the L0 of a {start.activation.name} dictionary while it is "
                "fine-tuned; use one with topk, jumprelu or relu"
            )
        self._start, self._trained = start, trained
        self._before = self._now = 0.0
        self.setting = 0.0

    def penalty(self, codes: SparseCodes) -> Float[Tensor, ""] | float:
        """A term for the loss, as large as its weight; 0 where there is none."""
        if not isinstance(self._trained.activation, ReLU) or not self.setting:
            return 0.0
        rows = self._trained.W_dec.detach().flatten(1).norm(dim=1)
        size = (codes.values * rows[codes.indices]).sum()
        return self.setting * size / size.detach().clamp_min(1e-30)

    @torch.no_grad()
    def watch(self, x: Float[Tensor, "N d_in"], codes: SparseCodes) -> None:
        """Count what is active, now and before, on the inputs of a step's next part."""
        if not isinstance(self._trained.activation, TopK):
            self._now += float(codes.l0().sum())
            self._before += float(self._start.encode(x).l0().sum())

    @torch.no_grad()
    def adjust(self) -> None:
        """Answer to what was counted since the last call."""
        if self._before:
            self.setting += _GAIN * (self._now / self._before - 1)
        self._before = self._now = 0.0
        self.restore(self.setting)

    @torch.no_grad()
    def restore(self, setting: float) -> None:
        """Put a setting into effect."""
        old, new = self._start.activation, self._trained.activation
        self.setting = max(0.0, setting) if isinstance(new, ReLU) else setting
        if isinstance(old, JumpReLU) and isinstance(new, JumpReLU):
            new.threshold.copy_(old.threshold * math.exp(self.setting))
