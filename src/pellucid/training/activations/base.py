"""What training needs to know of an activation: which features are active, and what else learns."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

from pellucid.core.types import SparseCodes
from pellucid.dictionaries.activations import Activation
from pellucid.distributed.team import Teams
from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters

Candidates = tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]
"""Values and features; padding has value 0."""


class Encoder(NamedTuple):
    """What makes pre-activations, in the dtype to multiply in, and the thresholds if there are."""

    W_enc: Float[Tensor, "F d"]
    b_enc: Float[Tensor, " F"]
    threshold: Float[Tensor, " F"] | None

    def pre_activations(self, inputs: Float[Tensor, "N d"]) -> Float[Tensor, "N F"]:
        """Dense ones."""
        return linear(inputs, self.W_enc, self.b_enc)


class Chosen(NamedTuple):
    """What a batch makes active.

    Attributes:
        codes: the active features of each token; padding has value 0.
        near: the features whose threshold learns from a token, at value 1; None where none does.
        cut: the smallest activation of the batch, where one cut serves all its tokens.
    """

    codes: SparseCodes
    near: SparseCodes | None = None
    cut: float | None = None


class ActivationRule(ABC):
    """An activation while it is trained.

    `candidates` makes dense pre-activations of a block of tokens and keeps a few of each token;
    `settle` sees the candidates of the whole batch and says which of them are active. Where
    features are spread over processes, each sees its own.
    """

    name: ClassVar[str]

    @abstractmethod
    def start(self, parameters: Parameters, cut: Callable[[], float]) -> None:
        """Set what only this activation has.

        Args:
            parameters: as every activation starts with.
            cut: gives the pre-activation that k features a token exceed in the first batch.
        """

    def width(self, config: TrainConfig) -> int:
        """How many candidates of a token to look for first."""
        return config.k

    @abstractmethod
    def candidates(
        self,
        config: TrainConfig,
        inputs: Float[Tensor, "N d"],
        encoder: Encoder,
        width: int,
    ) -> tuple[Candidates, Float[Tensor, "N F"]]:
        """The candidates of a block of tokens, and their pre-activations.

        Args:
            config: the settings.
            inputs: what the encoder matrix multiplies, in its dtype.
            encoder: the weights.
            width: how many of a token at most, where that is fixed.
        """

    @abstractmethod
    def settle(
        self, config: TrainConfig, found: SparseCodes, threshold: Tensor | None, teams: Teams
    ) -> Chosen | None:
        """Which candidates are active; None where more of a token must be looked for."""

    def price(self, config: TrainConfig, d_out: int) -> float:
        """What a unit of activation times decoder norm costs at a token, in units of the loss."""
        return 0.0

    def threshold_gradient(
        self,
        config: TrainConfig,
        threshold: Float[Tensor, " F"],
        aligned: Float[Tensor, " F"],
        near: Float[Tensor, " F"],
        l0: float,
    ) -> Float[Tensor, " F"]:
        """The loss's derivative by the thresholds, of an activation that has them.

        Args:
            config: the settings.
            threshold: one a feature.
            aligned: the loss's derivative by the feature's activation, summed over near tokens.
            near: the share of tokens that are near.
            l0: mean active features a token.
        """
        raise AssertionError(f"{self.name} has no thresholds")

    @abstractmethod
    def activation(self, config: TrainConfig, parameters: Parameters, cut: float) -> Activation:
        """What a finished dictionary has.

        Args:
            config: the settings.
            parameters: as trained.
            cut: running mean of `Chosen.cut`.
        """
