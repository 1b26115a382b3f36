"""What a format of dictionaries is: something recognised in a folder, read, and maybe written."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.manifest import Manifest
from pellucid.core.types import AnySite
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.checkpoint import ARTIFACT_KIND
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.parts import layer_of
from pellucid.dictionaries.formats.provenance import read_provenance

MODEL_NAME = "model_name"


@dataclass(slots=True, kw_only=True)
class Export:
    """One export: what it may use, and what it lost.

    Attributes:
        host: the model the dictionaries belong to, for formats whose names or values need it.
        allow_loss: export what the format cannot hold as the nearest it can.
        inputs: layer -> inputs of its dictionary on real text, to set thresholds on.
        lost: what was lost, a sentence each.
    """

    host: HostModel | None = None
    allow_loss: bool = False
    inputs: Mapping[int, Float[Tensor, "N d_in"]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def lose(self, what: str, instead: str) -> None:
        """Go on without something, if that was asked for.

        Args:
            what: the format cannot hold, as the subject of a sentence and its verb.
            instead: what is written.

        Raises:
            DictionaryError: it was not.
        """
        if not self.allow_loss:
            raise DictionaryError(f"{what}; pass --lossy (allow_loss=True) to write {instead}")
        self.lost.append(f"{what}: wrote {instead}")


class DictionaryFormat(ABC):
    """A format that can be read.

    Attributes:
        name: in the registry and on the command line.
        recognised_by: the files it is known by, in words.
        patterns: the files to download from the hub.
        one_of_many: repositories of it hold many dictionaries of each layer, so that a hub id
            must name a folder inside.
    """

    name: ClassVar[str]
    recognised_by: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]]
    one_of_many: ClassVar[bool] = False

    @abstractmethod
    def detect(self, folder: Path) -> bool:
        """Whether a folder is of this format, by its files alone."""

    @abstractmethod
    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """The dictionaries of a folder, in the types they are stored in (folded ones in float32).

        Args:
            folder: of this format.
            host: the model they belong to; where their places or values depend on it, needed.

        Raises:
            CheckpointError: a file is missing or damaged, or has what this format does not have.
            DictionaryError: pellucid cannot represent them, or needs the model to.
        """


class WritableFormat(DictionaryFormat):
    """A format that can be written too."""

    @abstractmethod
    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """Write a set into a new, empty folder.

        Args:
            folder: to write into.
            dictionaries: to write.
            export: what to use; it takes note of what is lost.

        Raises:
            DictionaryError: the format cannot hold them.
        """


def set_of(
    folder: Path,
    found: Mapping[Path, Dictionary],
    *,
    model_name: str | None = None,
) -> DictionarySet:
    """A set of dictionaries read from several files or folders, by the layer each one reads.

    Raises:
        DictionaryError: two of them read the same layer, or a place without a layer.
    """
    layers: dict[int, Dictionary] = {}
    homes: dict[int, Path] = {}
    for home, dictionary in found.items():
        layer = layer_of(dictionary.read_site)
        if layer is None:
            raise DictionaryError(
                f"{home} reads {dictionary.read_site}, which belongs to no layer; pellucid keeps "
                "one dictionary a layer"
            )
        if layer in layers:
            raise DictionaryError(
                f"{folder} holds several dictionaries of layer {layer} ({homes[layer].name} and "
                f"{home.name}); give the folder of the one you want"
            )
        layers[layer], homes[layer] = dictionary, home
    return named_set(folder, layers, model_name=model_name)


def named_set(
    folder: Path,
    layers: Mapping[int, Dictionary],
    *,
    model_name: str | None = None,
) -> DictionarySet:
    """A set with a manifest that says where it comes from.

    What pellucid wrote beside the format's own files (the model's fingerprint, figures) is in it.
    """
    known = read_provenance(folder)
    config: dict[str, Any] = dict(known.config)
    if model_name is not None:
        config[MODEL_NAME] = model_name
    manifest = Manifest(
        kind=ARTIFACT_KIND, config=config, parents=known.parents, results=known.results
    )
    return DictionarySet(folder.name, layers, manifest)


def model_name_of(dictionaries: DictionarySet, host: HostModel | None) -> str:
    """The name of the model a set belongs to, as far as it is known."""
    if host is not None:
        return host.name
    config = dictionaries.manifest.config if dictionaries.manifest else {}
    return str(config.get(MODEL_NAME, "unknown"))


def one_site(sites: Mapping[int, AnySite], names: Mapping[int, str], what: str) -> str:
    """The name that all layers share, in a format that has one for the whole set.

    Raises:
        DictionaryError: they differ.
    """
    first = min(names)
    for layer, name in names.items():
        if name != names[first]:
            raise DictionaryError(
                f"layer {layer} {what} {sites[layer]} where layer {first} {what} {sites[first]}; "
                "this format has one such place for all layers"
            )
    return names[first]


def every_layer(dictionaries: DictionarySet, host: HostModel | None, format_name: str) -> None:
    """A set must have layers 0 to L - 1, one number of features and one width.

    Raises:
        DictionaryError: it has not.
    """
    wanted = host.n_layers if host is not None else max(dictionaries.layers) + 1
    missing = sorted(set(range(wanted)) - set(dictionaries.layers))
    if missing:
        raise DictionaryError(
            f"{format_name} needs a dictionary for every layer, and {dictionaries.name!r} lacks "
            f"layer {', '.join(map(str, missing))} of {wanted}; train the missing layers"
        )
    first = dictionaries[0]
    for layer, dictionary in dictionaries.dictionaries.items():
        if dictionary.num_features != first.num_features:
            raise DictionaryError(
                f"{format_name} needs one number of features, and layer 0 of "
                f"{dictionaries.name!r} has {first.num_features}, layer {layer} "
                f"{dictionary.num_features}"
            )
        square_width(dictionary, layer, format_name)


def square_width(dictionary: Dictionary, layer: int, format_name: str) -> None:
    """A dictionary must write the width it reads.

    Raises:
        DictionaryError: it does not.
    """
    if dictionary.d_in != dictionary.d_out:
        raise DictionaryError(
            f"{format_name} has one width, and layer {layer} reads width {dictionary.d_in} and "
            f"writes width {dictionary.d_out}"
        )


def no_skip(dictionary: Dictionary, layer: int, format_name: str) -> None:
    """A dictionary must have no skip path.

    Raises:
        DictionaryError: it has one.
    """
    if dictionary.W_skip is not None:
        raise DictionaryError(
            f"{format_name} has no skip path, and layer {layer} has one; without it the layer is "
            "another function"
        )


def of_kind(
    dictionary: Dictionary, layer: int, kinds: tuple[type[Dictionary], ...], format_name: str
) -> None:
    """A dictionary must be of one of these kinds.

    Raises:
        DictionaryError: it is of another.
    """
    if not isinstance(dictionary, kinds):
        names = " or ".join(kind.kind for kind in kinds)
        raise DictionaryError(
            f"{format_name} holds {names} dictionaries, and layer {layer} is a {dictionary.kind}"
        )
