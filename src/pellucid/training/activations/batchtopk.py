"""BatchTopK: the k N largest positive pre-activations of N tokens (Bussmann et al. 2024)."""

from collections.abc import Callable
from math import isfinite
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import SparseCodes
from pellucid.dictionaries.activations import Activation, JumpReLU
from pellucid.distributed.team import Teams
from pellucid.kernels.dispatch import linear_relu_topk
from pellucid.training.activations.base import ActivationRule, Candidates, Chosen, Encoder
from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters

_FIRST_WIDTH = 4  # candidates a token, in units of k


@final
class BatchTopKRule(ActivationRule):
    """Tokens share a budget of features; a finished dictionary has the mean cut as threshold."""

    name = "batchtopk"

    def start(self, parameters: Parameters, cut: Callable[[], float]) -> None:
        """It has nothing of its own."""

    def width(self, config: TrainConfig) -> int:
        """A few times k: a token may take more than its share."""
        return _FIRST_WIDTH * config.k

    def candidates(
        self, config: TrainConfig, inputs: Float[Tensor, "N d"], encoder: Encoder, width: int
    ) -> tuple[Candidates, Float[Tensor, "N F"]]:
        """The largest."""
        width = min(width, len(encoder.b_enc))
        values, indices, pre = linear_relu_topk(inputs, encoder.W_enc, encoder.b_enc, width)
        return (values, indices), pre

    def settle(
        self, config: TrainConfig, found: SparseCodes, threshold: Tensor | None, teams: Teams
    ) -> Chosen | None:
        """The k N largest; None where all candidates of a token are among them, and it has more."""
        everyone = teams.tokens.stack(teams.features.stack(found.values))
        n_tokens = len(found.values) * teams.tokens.size
        beyond = everyone.numel() - config.k * n_tokens
        cut = everyone.flatten().kthvalue(beyond + 1).values if beyond > 0 else everyone.min()
        kept = (found.values >= cut) & (found.values > 0)
        full = kept.all(dim=1).any() & (found.values.shape[1] < found.num_features)
        if teams.tokens.sum(teams.features.sum(full.float())) > 0:
            return None
        smallest = float(everyone.where(everyone >= cut.clamp_min(1e-30), torch.inf).min())
        return Chosen(_packed(found, kept), cut=smallest if isfinite(smallest) else None)

    def activation(self, config: TrainConfig, parameters: Parameters, cut: float) -> Activation:
        """A JumpReLU with one threshold for all features."""
        return JumpReLU(torch.full_like(parameters.b_enc, cut))


def _packed(found: SparseCodes, kept: Tensor) -> SparseCodes:
    """The kept candidates, in as few columns as the token with most of them needs."""
    values = found.values.where(kept, 0)
    width = max(1, int(kept.sum(dim=1).max()))
    values, slots = values.topk(width, dim=1)
    return SparseCodes(values, found.indices.gather(1, slots), found.num_features)
