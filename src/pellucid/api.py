"""Where the word "specimen" becomes the packaged model and its dictionaries.

Layers below know nothing of each other; this one joins them. Text sources resolve the word
themselves (`harvest.sources.open_text`).
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.formats.load import load_dictionaries as read_dictionaries
from pellucid.models.load import load_model as read_model
from pellucid.models.model import LanguageModel
from pellucid.specimen.packaged import model_path, transcoders_path

SPECIMEN = "specimen"


def load_model(
    source: str | Path | nn.Module,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **options: Any,
) -> LanguageModel:
    """A language model, ready to be read and edited.

    Args:
        source: a hub id, a local folder, a module, or "specimen" for the packaged model;
            "specimen:reporter" and "specimen:yes-bias" are its organisms (docs/introspection.md),
            "specimen:planted-RULE" a copy that follows a wrong rule (docs/planted.md).
        tokenizer: instead of the one beside the weights; for a module, None means ids only.
        **options: `dtype`, `device`, `check` and `generic` of `pellucid.models.load.load_model`.

    Raises:
        ModelError: not found, unreadable, damaged, or of an unsupported family.
        ConfigError: the device is not available.
        ConformanceError: the model does not compute what its family's description says.
    """
    if isinstance(source, str) and source == SPECIMEN:
        model = read_model(model_path(), tokenizer, **options)
        model.name = SPECIMEN
        return model
    if isinstance(source, str) and source.startswith(f"{SPECIMEN}:"):
        from pellucid.introspection.organisms.packaged import become

        folder = _update_path(source.removeprefix(f"{SPECIMEN}:"))
        model = become(read_model(model_path(), tokenizer, **options), folder)
        model.name = source
        return model
    return read_model(source, tokenizer, **options)


def _update_path(name: str) -> Path:
    """The folder of an update of the specimen: a planted rule or an organism."""
    from pellucid.introspection.organisms.packaged import organism_path
    from pellucid.verification.planted.packaged import PREFIX, planted_path

    if name.startswith(PREFIX):
        return planted_path(name.removeprefix(PREFIX))
    return organism_path(name)


def load_dictionaries(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    lazy: bool = False,
    model: LanguageModel | None = None,
) -> DictionarySet:
    """Dictionaries that `train` wrote, or those of another tool (docs/interchange.md).

    Args:
        source: a folder, a hub id, or "specimen" for the packaged transcoders.
        device: where to put them.
        dtype: of their parameters.
        lazy: leave them in their files; see `pellucid.dictionaries.checkpoint`.
        model: the model they belong to; some formats say where they read and write only with it.

    Raises:
        CheckpointError: missing, truncated or altered, or in no format that pellucid knows.
        DictionaryError: tensors that do not fit each other, or what pellucid cannot represent.
    """
    if isinstance(source, str) and source == SPECIMEN:
        source = transcoders_path()
    return read_dictionaries(source, device=device, dtype=dtype, lazy=lazy, model=model)
