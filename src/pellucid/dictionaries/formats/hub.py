"""Finding the folder of a source: a folder here, or a repository of the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from pellucid.core.errors import CheckpointError
from pellucid.core.files import recover_directory

SCHEME = "hf://"
_HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)(?:@([\w./-]+))?")
_FILE = re.compile(r"hf://([\w.-]+/[\w.-]+)/([^?@]+)(?:\?revision=([\w./-]+))?")


def find_folder(
    source: str | Path, patterns: Sequence[str], inner_patterns: Sequence[str] = ()
) -> Path:
    """The local folder of a source, downloaded first if it names a repository of the hub.

    Args:
        source: a folder, or `owner/name`, `owner/name/folder/inside`, either with `@revision`.
        patterns: the files to download.
        inner_patterns: those to download too where a folder inside is named.

    Raises:
        CheckpointError: there is no such folder and no such repository.
    """
    folder = Path(source)
    recover_directory(folder)
    if folder.is_dir():
        return folder
    match = _HUB_ID.fullmatch(source) if isinstance(source, str) else None
    if match is None or ".." in str(source).split("/"):
        raise CheckpointError(
            f"there is no folder {str(source)!r}; give a folder of dictionaries or a hub id"
        )
    inside = match[2].strip("/")
    wanted = [*patterns, *(inner_patterns if inside else ())]
    from huggingface_hub import snapshot_download

    try:
        root = snapshot_download(
            match[1],
            revision=match[3],
            allow_patterns=[f"{inside}/{pattern}" if inside else pattern for pattern in wanted],
        )
    except Exception as error:  # the client raises errors of four libraries
        raise CheckpointError(
            f"there is no folder {source!r} and the hub gives no such repository "
            f"({type(error).__name__}); check the name and the connection"
        ) from error
    if inside and not (Path(root) / inside).is_dir():
        raise CheckpointError(
            f"the repository {match[1]} has no dictionaries in {inside!r}; check the name"
        )
    return Path(root) / inside


def download_file(address: str) -> Path:
    """One file of the hub, `hf://owner/name/path/of/file`, maybe with `?revision=...`.

    Raises:
        CheckpointError: it is no such address, or the hub does not give the file.
    """
    match = _FILE.fullmatch(address)
    if match is None or ".." in address.split("/"):
        raise CheckpointError(
            f"{address!r} is no file of the hub; it should be {SCHEME}owner/name/path/of/file"
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(match[1], match[2], revision=match[3]))
    except Exception as error:  # as above
        raise CheckpointError(
            f"the hub does not give {address} ({type(error).__name__}); check the name and the "
            "connection"
        ) from error
