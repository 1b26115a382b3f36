"""What pellucid knows of dictionaries beyond what a foreign format can say, kept beside its files.

`pellucid.json` holds the model's fingerprint and the figures measured in training. Other tools pass
it over; nothing that decides what a dictionary computes, or where, is in it.
"""

import json
from pathlib import Path

from pellucid.core.manifest import Manifest
from pellucid.dictionaries.checkpoint import ARTIFACT_KIND
from pellucid.dictionaries.dictionary_set import MODEL_PARENT, DictionarySet

PROVENANCE_NAME = "pellucid.json"


def write_provenance(folder: Path, dictionaries: DictionarySet) -> None:
    """Write what is known of a set; nothing where nothing is."""
    manifest = dictionaries.manifest
    if manifest is None:
        return
    record = {
        "model_fingerprint": manifest.parents.get(MODEL_PARENT),
        "training": manifest.config.get("training", {}),
        "results": manifest.results,
    }
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
    (folder / PROVENANCE_NAME).write_text(text + "\n", encoding="utf-8")


def read_provenance(folder: Path) -> Manifest:
    """What was written; an empty manifest where nothing was, or it cannot be read."""
    try:
        record = json.loads((folder / PROVENANCE_NAME).read_text(encoding="utf-8"))
        fingerprint, training, results = (
            record.get(name) for name in ("model_fingerprint", "training", "results")
        )
    except (OSError, ValueError, AttributeError):
        fingerprint, training, results = None, None, None
    return Manifest(
        kind=ARTIFACT_KIND,
        config={"training": training} if isinstance(training, dict) else {},
        parents={MODEL_PARENT: fingerprint} if isinstance(fingerprint, str) else {},
        results=results if isinstance(results, dict) else {},
    )
