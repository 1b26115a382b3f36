"""Where a patch is put: a tensor of the model, and which of its columns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import SiteError
from pellucid.core.places import HeadSite, Place
from pellucid.core.types import Site
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapPoint


@dataclass(frozen=True, slots=True, order=True)
class NeuronSite:
    """What a neuron of an MLP gives to the output projection, or all neurons: `neuron@2[17]`."""

    layer: int
    neuron: int | None = None

    def __str__(self) -> str:
        return f"neuron@{self.layer}" + ("" if self.neuron is None else f"[{self.neuron}]")


TracingSite = Site | HeadSite | NeuronSite


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A place as the engine sees it.

    Attributes:
        point: where its tensor is.
        layer: of the block that computes it; `resid_post` belongs to the next block.
        columns: which of the tensor's columns, None for all.
        entry: it is what the block of its layer is given.
    """

    point: TapPoint
    layer: int
    columns: Int[Tensor, " w"] | None = None
    entry: bool = False

    def read(self, tensor: Float[Tensor, "*S D"]) -> Float[Tensor, "*S w"]:
        """The place's own columns of its tensor."""
        return tensor if self.columns is None else tensor[..., self.columns]


def slot(model: LanguageModel, place: Place | NeuronSite) -> Slot:
    """Where a place is in a model.

    Raises:
        SiteError: the model has no such place, or it cannot be traced.
    """
    if isinstance(place, HeadSite):
        point, columns = model.head_point(place)
        return Slot(point, place.layer, columns.to(model.device))
    if isinstance(place, NeuronSite):
        point = TapPoint(f"{_inside(model, place.layer, 'mlp')}.{_down(model)}", "input")
        if place.neuron is None:
            return Slot(point, place.layer)
        return Slot(point, place.layer, torch.tensor([place.neuron], device=model.device))
    if not isinstance(place, Site):
        raise SiteError(
            f"{place} cannot be traced; use a residual, attention or MLP site, a head as in "
            "'z@1[3]', or a neuron"
        )
    if place.kind in ("embed", "resid_pre"):
        layer = max(0, place.layer)
        return Slot(model.point(Site("resid_pre", layer)), layer, entry=True)
    if place.kind == "resid_post":
        return Slot(model.point(place), place.layer + 1, entry=True)
    return Slot(model.point(place), place.layer)


def _inside(model: LanguageModel, layer: int, part: str) -> str:
    block = model.point(Site("resid_pre", layer)).path
    assert model.spec is not None
    return f"{block}.{getattr(model.spec, part)}"


def _down(model: LanguageModel) -> str:
    assert model.spec is not None
    return model.spec.mlp_layout.down
