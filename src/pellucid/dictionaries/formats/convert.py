"""Converting dictionaries to another format, read back and measured before they are in place."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import ConfigError, DictionaryError
from pellucid.core.files import atomic_directory
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.format import Export, WritableFormat
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.registry import FORMATS

_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a conversion did.

    Attributes:
        format: what was written.
        out: the folder.
        layers: the layers converted.
        lossless: nothing was lost.
        lost: what was, a sentence each.
        max_abs_diff: the largest difference between outputs of the source and of what was read
            back, over random inputs, all layers and all write sites.
    """

    format: str
    out: str
    layers: tuple[int, ...]
    lossless: bool
    lost: tuple[str, ...]
    max_abs_diff: float

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""
        return asdict(self)


def convert(
    dictionaries: DictionarySet,
    destination: str | Path,
    to: str,
    *,
    model: HostModel | None = None,
    allow_loss: bool = False,
    inputs: Mapping[int, Float[Tensor, "N d_in"]] | None = None,
    seed: int = 0,
) -> Conversion:
    """Write a set in another format, whole or not at all.

    Args:
        dictionaries: what to convert.
        destination: a folder that does not exist yet.
        to: the name of a format in `FORMATS`.
        model: the model they belong to, for formats whose names or values depend on it.
        allow_loss: write the nearest that the format has, where it cannot hold the dictionaries.
        inputs: layer -> inputs on real text, to set thresholds on where an activation is lost.
        seed: of the random inputs on which both sides are compared.

    Raises:
        ConfigError: an unknown format, or the destination exists.
        DictionaryError: the format cannot hold the dictionaries, or the model is needed.
        StorageError: the disk refuses.
    """
    wanted = FORMATS[to]
    if not isinstance(wanted, WritableFormat):
        raise ConfigError(f"{to} can be read but not written; choose another format")
    destination = Path(destination)
    if destination.exists():
        raise ConfigError(f"{destination} exists already; name a folder that does not")
    if model is not None:
        dictionaries.check_model(model, every_layer=False)
    export = Export(host=model, allow_loss=allow_loss, inputs=inputs or {})
    with atomic_directory(destination) as folder:
        wanted.write(folder, dictionaries, export)
        again = wanted.read(folder, host=model)
    return Conversion(
        format=to,
        out=str(destination),
        layers=tuple(dictionaries.layers),
        lossless=not export.lost,
        lost=tuple(export.lost),
        max_abs_diff=largest_difference(dictionaries, again, seed=seed),
    )


@torch.no_grad()
def largest_difference(a: DictionarySet, b: DictionarySet, *, seed: int) -> float:
    """The largest difference of outputs over random inputs of unit variance.

    Raises:
        DictionaryError: the sets have other layers or places.
    """
    if a.layers != b.layers:
        raise DictionaryError(f"layers {a.layers} were read back as {b.layers}")
    generator = torch.Generator().manual_seed(seed)
    largest = 0.0
    for layer in a.layers:
        one, other = a[layer], b[layer]
        x = torch.randn(_TOKENS, one.d_in, generator=generator)
        outputs = _outputs(one, x), _outputs(other, x)
        for written, read in zip(*outputs, strict=False):
            largest = max(largest, float((written - read).abs().max()))
    return largest


def _outputs(dictionary: Dictionary, x: Float[Tensor, "N d_in"]) -> list[Float[Tensor, "N d_out"]]:
    """What a dictionary writes to each of its sites, in float32 on the CPU."""
    x = x.to(dictionary.W_enc.device)
    codes = dictionary.encode(x)
    written = [dictionary.decode(codes, slot) for slot in range(len(dictionary.write_sites))]
    linear = dictionary.skip(x)
    if linear is not None:
        written[0] = written[0] + linear
    return [value.float().cpu() for value in written]
