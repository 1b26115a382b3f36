"""TopK: the k largest positive pre-activations of each token (Gao et al. 2024)."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import SparseCodes
from pellucid.dictionaries.activations import Activation, TopK
from pellucid.distributed.team import Teams
from pellucid.kernels.dispatch import linear_relu_topk
from pellucid.training.activations.base import ActivationRule, Candidates, Chosen, Encoder
from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters


@final
class TopKRule(ActivationRule):
    """The k largest candidates of a token are its k largest pre-activations."""

    name = "topk"

    def start(self, parameters: Parameters, cut: Callable[[], float]) -> None:
        """It has nothing of its own."""

    def candidates(
        self, config: TrainConfig, inputs: Float[Tensor, "N d"], encoder: Encoder, width: int
    ) -> tuple[Candidates, Float[Tensor, "N F"]]:
        """The largest."""
        width = min(width, len(encoder.b_enc))
        values, indices, pre = linear_relu_topk(inputs, encoder.W_enc, encoder.b_enc, width)
        return (values, indices), pre

    def settle(
        self, config: TrainConfig, found: SparseCodes, threshold: Tensor | None, teams: Teams
    ) -> Chosen:
        """All of them; with features on several processes, those among the k largest of all."""
        return Chosen(largest_of_all(found, config.k, teams))

    def activation(self, config: TrainConfig, parameters: Parameters, cut: float) -> Activation:
        """TopK."""
        return TopK(config.k)


def largest_of_all(found: SparseCodes, k: int, teams: Teams) -> SparseCodes:
    """Those of a process's candidates that are among the k largest of all its team's."""
    if teams.features.size == 1:
        return found
    everyone = teams.features.stack(found.values).transpose(0, 1).flatten(1)
    kth = torch.topk(everyone, min(k, everyone.shape[1]), dim=1).values[:, -1:]
    values = found.values.where(found.values >= kth, 0)
    return SparseCodes(values, found.indices, found.num_features)
