"""Our own format: a manifest with checksums, one safetensors file a layer."""

from pathlib import Path
from typing import ClassVar, final

import torch

from pellucid.core.manifest import MANIFEST_NAME
from pellucid.dictionaries.checkpoint import load_dictionaries, save_dictionaries
from pellucid.dictionaries.dictionary_set import MODEL_PARENT, DictionarySet
from pellucid.dictionaries.formats.format import Export, WritableFormat
from pellucid.dictionaries.formats.host import HostModel


@final
class Pellucid(WritableFormat):
    """See `pellucid.dictionaries.checkpoint`; it holds every kind and activation there is."""

    name = "pellucid"
    recognised_by = f"{MANIFEST_NAME} of kind dictionaries"
    patterns: ClassVar = (MANIFEST_NAME, "layer_*.safetensors")

    def detect(self, folder: Path) -> bool:
        """By its manifest."""
        return (folder / MANIFEST_NAME).is_file()

    def read(self, folder: Path, *, host: HostModel | None = None) -> DictionarySet:
        """Every file is verified against its checksum."""
        return load_dictionaries(folder, dtype=torch.float32)

    def write(self, folder: Path, dictionaries: DictionarySet, export: Export) -> None:
        """With the model's fingerprint, from the set or from the model given."""
        manifest = dictionaries.manifest
        fingerprint = manifest.parents.get(MODEL_PARENT) if manifest else None
        if fingerprint is None and export.host is not None:
            fingerprint = export.host.fingerprint()
        save_dictionaries(
            folder,
            dictionaries.dictionaries,
            model_fingerprint=fingerprint,
            config=manifest.config.get("training") if manifest else None,
            results=manifest.results if manifest else None,
            seed=manifest.seed if manifest else None,
        )
