"""Loading dictionaries of any format from a folder or from the Hugging Face hub."""

from pathlib import Path

import torch

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.dictionaries import checkpoint
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.format import DictionaryFormat
from pellucid.dictionaries.formats.host import HostModel
from pellucid.dictionaries.formats.hub import find_folder
from pellucid.dictionaries.formats.pellucid import Pellucid
from pellucid.dictionaries.formats.registry import FORMATS


def load_dictionaries(
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    lazy: bool = False,
    model: HostModel | None = None,
) -> DictionarySet:
    """Load a dictionary set, ours or another tool's, recognised by its files.

    The caller checks that the set belongs to its model: `DictionarySet.check_model`.

    Args:
        source: a folder, or a hub id: `owner/name`, `owner/name/folder/inside`, with `@revision`.
        device: where to put the parameters.
        dtype: of the parameters, and of everything computed with them.
        lazy: leave the parameters in the files; see `checkpoint.load_dictionaries`. Our own format.
        model: the model they belong to. Formats that name modules, or read before the gain of a
            norm, need it to say where they read and write.

    Raises:
        ConfigError: lazy dictionaries on another device than the CPU, or of another tool.
        CheckpointError: nothing there, in no known format, or a file is missing or damaged.
        DictionaryError: the tensors do not form valid dictionaries, pellucid cannot represent
            them, or the model is needed.
    """
    folder = find_folder(source, *_patterns())
    found = recognise(folder)
    if isinstance(found, Pellucid):
        return checkpoint.load_dictionaries(folder, device=device, dtype=dtype, lazy=lazy)
    if lazy:
        raise ConfigError(
            f"{folder} is in the format {found.name}, and only pellucid's own can be left in its "
            "files; convert it first: pellucid convert SRC DST --to pellucid"
        )
    dictionaries = found.read(folder, host=model)
    for dictionary in dictionaries:
        dictionary.to(device=device, dtype=dtype)
    return dictionaries


def recognise(folder: Path) -> DictionaryFormat:
    """The format of a folder.

    Raises:
        CheckpointError: it is in none that pellucid knows.
    """
    for name in FORMATS:
        if FORMATS[name].detect(folder):
            return FORMATS[name]
    known = "; ".join(f"{name} ({FORMATS[name].recognised_by})" for name in FORMATS)
    raise CheckpointError(
        f"{folder} holds dictionaries in no format that pellucid knows; it knows {known}"
    )


def _patterns() -> tuple[list[str], list[str]]:
    """What to download of a repository, and what of a folder inside one."""
    everywhere: list[str] = []
    inside: list[str] = []
    for name in FORMATS:
        known = FORMATS[name]
        (inside if known.one_of_many else everywhere).extend(known.patterns)
    return list(dict.fromkeys(everywhere)), list(dict.fromkeys(inside))
