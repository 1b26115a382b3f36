"""A ground truth as a stream of activations, in place of a model's."""

from typing import Any, final

import torch

from pellucid.core.errors import ConfigError
from pellucid.core.types import AnySite
from pellucid.evaluation.ground_truth.truth import GroundTruth
from pellucid.harvest.activations import ActivationBatch


@final
class GroundTruthStream:
    """An endless iterator of `ActivationBatch`es of a ground truth's read and write sites.

    Every batch is a function of the seed and its own number, so the state is that number.

    Args:
        truth: what to sample.
        batch_tokens: how many tokens every batch has.
        seed: which tokens: another seed is other tokens of the same truth, such as held-out ones.

    Raises:
        ConfigError: `batch_tokens` is not positive.
    """

    def __init__(self, truth: GroundTruth, *, batch_tokens: int, seed: int = 0) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}; give a positive number")
        self._truth, self._batch_tokens, self._seed = truth, batch_tokens, seed
        self._batch = 0

    def __iter__(self) -> "GroundTruthStream":
        return self

    def __next__(self) -> ActivationBatch:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + self._batch) % 2**63)
        sample = self._truth.sample(self._batch_tokens, generator)
        first = self._batch * self._batch_tokens
        values: dict[AnySite, torch.Tensor] = {
            self._truth.read_site: sample.x,
            self._truth.write_site: sample.y,
        }
        self._batch += 1
        return ActivationBatch(values, torch.arange(first, first + self._batch_tokens))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here; JSON-able."""
        return {"batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, on a stream made with the same arguments."""
        self._batch = state["batch"]
