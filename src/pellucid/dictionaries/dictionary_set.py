"""The dictionaries of a model, one a layer: what users load and hand to the other verbs."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from pellucid.core.errors import DictionaryError
from pellucid.core.manifest import Manifest
from pellucid.core.types import Site
from pellucid.dictionaries.base import Dictionary

MODEL_PARENT = "model"


class DescribedModel(Protocol):
    """What of a model is needed to check that dictionaries belong to it."""

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


class DictionarySet:
    """Dictionaries by layer, with the manifest they were saved under (None if never saved).

    Args:
        name: what to call the set, such as its folder's name.
        dictionaries: at least one dictionary, by layer number.
        manifest: where the set comes from; its parent "model" is the model's fingerprint.

    Raises:
        DictionaryError: no dictionaries.
    """

    def __init__(
        self, name: str, dictionaries: Mapping[int, Dictionary], manifest: Manifest | None = None
    ) -> None:
        if not dictionaries:
            raise DictionaryError(f"the dictionary set {name!r} is empty; give at least one layer")
        self.name = name
        self.dictionaries = dict(sorted(dictionaries.items()))
        self.manifest = manifest

    @property
    def layers(self) -> list[int]:
        """The layers that have a dictionary, ascending."""
        return list(self.dictionaries)

    def __getitem__(self, layer: int) -> Dictionary:
        if layer not in self.dictionaries:
            raise DictionaryError(
                f"the dictionary set {self.name!r} has no layer {layer}; it has "
                f"{', '.join(map(str, self.layers))}"
            )
        return self.dictionaries[layer]

    def __iter__(self) -> Iterator[Dictionary]:
        return iter(self.dictionaries.values())

    def __len__(self) -> int:
        return len(self.dictionaries)

    def check_model(self, model: DescribedModel, *, every_layer: bool = True) -> None:
        """Check that these are dictionaries of `model`, or of the model it is a small update of.

        Args:
            model: the model they are about to be used with.
            every_layer: demand a dictionary for each of the model's layers.

        Raises:
            DictionaryError: another fingerprint, another width, a layer the model does not have,
                or a layer without a dictionary.
        """
        recorded = self.manifest.parents.get(MODEL_PARENT) if self.manifest else None
        actual = model.fingerprint()
        if recorded not in (None, actual, model.finetuned_from):
            raise DictionaryError(
                f"the dictionary set {self.name!r} was trained on another model (fingerprint "
                f"{recorded}, this one's is {actual}); load the model it was trained on"
            )
        for layer, dictionary in self.dictionaries.items():
            _check_sites(self.name, layer, dictionary, model)
        missing = sorted(set(range(model.n_layers)) - set(self.layers)) if every_layer else []
        if missing:
            raise DictionaryError(
                f"the dictionary set {self.name!r} lacks layer {', '.join(map(str, missing))} of "
                f"{model.n_layers}; train the missing layers too"
            )


def _check_sites(name: str, layer: int, dictionary: Dictionary, model: DescribedModel) -> None:
    sites = (
        ("reads", dictionary.read_site, dictionary.d_in),
        *(("writes", site, dictionary.d_out) for site in dictionary.write_sites),
    )
    for verb, site, width in sites:
        if not isinstance(site, Site):
            continue
        if site.layer >= model.n_layers:
            raise DictionaryError(
                f"layer {layer} of the dictionary set {name!r} {verb} {site} but the model has "
                f"{model.n_layers} layers; load the model it was trained on"
            )
        if width != model.d_model:
            raise DictionaryError(
                f"layer {layer} of the dictionary set {name!r} {verb} {site} with width {width} "
                f"but the model's width is {model.d_model}; load the model it was trained on"
            )
