"""Where a place is in a running model: the tensors that are read and written, and their order."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import FeatureSite, HeadSite, Place
from pellucid.core.types import AnySite, ModuleSite, Site
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapPoint

_STAGES = {
    "embed": 0,
    "resid_pre": 0,
    "q": 1,
    "k": 1,
    "v": 1,
    "z": 2,
    "attn_out": 3,
    "resid_mid": 4,
    "mlp_in": 5,
    "mlp_out": 6,
    "resid_post": 7,
}


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Part of a tensor in a running model.

    Attributes:
        point: the tensor.
        columns: which of its columns; None for all.
    """

    point: TapPoint
    columns: Int[Tensor, " n"] | None = None

    def read(self, value: Tensor) -> Tensor:
        """The part, `[..., n]`."""
        return value if self.columns is None else value[..., self.columns]


def view_of(model: LanguageModel, place: AnySite | HeadSite) -> View:
    """Where a site or a head is.

    Raises:
        SiteError: the model has no such site or head.
    """
    if isinstance(place, HeadSite):
        point, columns = model.head_point(place)
        return View(point, columns.to(model.device))
    return View(model.point(place))


def dictionary_of(place: FeatureSite, dictionaries: DictionarySet | None) -> Dictionary:
    """The dictionary that a feature belongs to.

    Raises:
        InterventionError: there are no dictionaries, or the feature is out of range.
        DictionaryError: the set lacks the layer.
    """
    if dictionaries is None:
        raise InterventionError(
            f"site {place} is a feature, and no dictionaries were given; give those it belongs to"
        )
    dictionary = dictionaries[place.layer]
    if place.feature >= dictionary.num_features:
        raise InterventionError(
            f"feature {place.feature} of {place} is out of range; layer {place.layer} has features "
            f"0 to {dictionary.num_features - 1}"
        )
    return dictionary


def width_of(model: LanguageModel, place: AnySite | HeadSite) -> int | None:
    """How many numbers a token has there; None where only running the model would tell."""
    if isinstance(place, HeadSite):
        return len(model.head_point(place)[1])
    return None if isinstance(place, ModuleSite) else model.d_model


def order_of(place: Place, dictionaries: DictionarySet | None) -> tuple[int, int] | None:
    """When a place is computed, comparable with others; None for a module, which nobody knows.

    Args:
        place: a feature counts where its dictionary reads.
        dictionaries: those of the features.
    """
    if isinstance(place, FeatureSite):
        return order_of(dictionary_of(place, dictionaries).read_site, dictionaries)
    if isinstance(place, ModuleSite):
        return None
    assert isinstance(place, (Site, HeadSite))
    return max(place.layer, 0), _STAGES[place.kind]
