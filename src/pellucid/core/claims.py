"""A folder of parts belongs to one run: which one is written in it before the first part."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.core.errors import CheckpointError
from pellucid.core.files import write_text

RUN_NAME = "run.json"


def claim_folder(folder: Path, wanted: Mapping[str, Any], holds: str) -> None:
    """Note what a folder of parts is for; refuse one that is for something else.

    Args:
        folder: made if it is missing.
        wanted: everything that decides the parts, JSON-able.
        holds: what the parts are, for messages.

    Raises:
        CheckpointError: the folder is of another run, or holds parts of an unknown one.
        StorageError: the disk refuses.
    """
    wanted = json.loads(json.dumps(wanted))
    path = folder / RUN_NAME
    if path.exists():
        found = read_claim(folder)
        if found != wanted:
            other = [key for key in wanted if found.get(key) != wanted[key]]
            raise CheckpointError(
                f"{folder} holds {holds} made with other {', '.join(other)}; give another folder"
            )
        return
    if folder.exists() and any(folder.glob("part-*")):
        raise CheckpointError(f"{folder} holds parts but no {RUN_NAME}; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(wanted, indent=2) + "\n")


def read_claim(folder: Path) -> dict[str, Any]:
    """What a folder's parts were made with; empty where that cannot be read."""
    try:
        found = json.loads((folder / RUN_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
