"""What of a model is needed to say where foreign dictionaries read and write.

`pellucid.models.model.LanguageModel` has all of it; dictionaries know no models.
"""

from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import AnySite


class Point(Protocol):
    """A side of a module."""

    @property
    def path(self) -> str:
        """The module's path, from the root of the whole model."""

    @property
    def side(self) -> str:
        """Its "input" or "output"."""


class Norm(Protocol):
    """A norm, `normalised * gain + bias`."""

    @property
    def gain(self) -> Float[Tensor, " d"]:
        """What multiplies the normalised residual, any offset of the family included."""

    @property
    def bias(self) -> Float[Tensor, " d"] | None:
        """What is added to it."""

    @property
    def path(self) -> str:
        """Of the module."""


class Block(Protocol):
    """One block of a model."""

    @property
    def mlp_norm(self) -> Norm | None:
        """The norm before the MLP, None where there is none."""


class HostModel(Protocol):
    """The model that dictionaries belong to."""

    name: str
    module: Any

    @property
    def n_layers(self) -> int:
        """How many blocks it has."""

    @property
    def d_model(self) -> int:
        """Width of its residual stream."""

    @property
    def finetuned_from(self) -> str | None:
        """Fingerprint of the model that it is a small update of."""

    def fingerprint(self) -> str:
        """A stable hash of its architecture and weights."""

    def point(self, site: AnySite) -> Point:
        """Where a site is.

        Raises:
            SiteError: the model has no such site, or its family is unknown.
        """

    def block(self, layer: int) -> Block:
        """The linear pieces of a block.

        Raises:
            SiteError: no such layer, or no known family.
        """
