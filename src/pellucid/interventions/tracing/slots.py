"""Where a patch is put: a tensor of the model, and which of its columns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import SiteError
from pellucid.core.places import HeadSite, Place
from pellucid.core.types import Site
from pellucid.models.linear import head_shape
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
        return _head_slot(model, place)
    if isinstance(place, NeuronSite):
        point = TapPoint(f"{_inside(model, place.layer, 'mlp')}.{_down(model)}", "input")
        columns = None if place.neuron is None else torch.tensor([place.neuron])
        return Slot(point, place.layer, columns)
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


def _head_slot(model: LanguageModel, place: HeadSite) -> Slot:
    """Heads of `z` lie side by side in what the output projection is given."""
    path = _inside(model, place.layer, "attention")
    assert model.spec is not None
    layout, heads = model.spec.layout, head_shape(model.module, model.spec, place.layer)
    all_z = torch.arange(heads.n_heads * heads.d_head)
    if place.kind == "z":
        point, columns, n_heads = TapPoint(f"{path}.{layout.output}", "input"), all_z, heads.n_heads
    else:
        name, pick, n_heads = {
            "q": (layout.query, layout.query_rows, heads.n_heads),
            "k": (layout.key, layout.key_rows, heads.n_kv_heads),
            "v": (layout.value, layout.value_rows, heads.n_kv_heads),
        }[place.kind]
        point = TapPoint(f"{path}.{name}", "output")
        width = model.module.get_submodule(point.path)
        columns = pick(torch.arange(_outputs(width)), heads)
    if place.head is None:
        return Slot(point, place.layer, columns)
    if not 0 <= place.head < n_heads:
        raise SiteError(
            f"site {place}: layer {place.layer} has {n_heads} heads of this kind; "
            f"use 0 to {n_heads - 1}"
        )
    own = slice(place.head * heads.d_head, (place.head + 1) * heads.d_head)
    return Slot(point, place.layer, columns[own])


def _outputs(projection: torch.nn.Module) -> int:
    """How many outputs a `Linear` or GPT-2's `Conv1D` has."""
    from pellucid.models.attention_layouts import weight_and_bias

    return len(weight_and_bias(projection)[0])


def _inside(model: LanguageModel, layer: int, part: str) -> str:
    block = model.point(Site("resid_pre", layer)).path
    assert model.spec is not None
    return f"{block}.{getattr(model.spec, part)}"


def _down(model: LanguageModel) -> str:
    assert model.spec is not None
    return model.spec.mlp_layout.down
