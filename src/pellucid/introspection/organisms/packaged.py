"""The shipped organisms: the specimen with a low-rank update merged in."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from pellucid.core.errors import CheckpointError, ModelError
from pellucid.core.manifest import read_manifest
from pellucid.introspection.organisms.recipe import KIND, NAMES, WEIGHTS_FILE
from pellucid.models.model import LanguageModel
from pellucid.specimen.low_rank import merge

_WEIGHTS = Path(__file__).parent / "weights"


def organism_path(name: str) -> Path:
    """The folder of a shipped organism.

    Args:
        name: `reporter` or `yes-bias`.

    Raises:
        ModelError: no such organism, or the package was installed without it.
    """
    if name not in NAMES:
        raise ModelError(
            f"there is no organism {name!r} of the specimen; use {' or '.join(NAMES)}, as in "
            "'specimen:reporter'"
        )
    folder = _WEIGHTS / name
    if not folder.is_dir():
        raise ModelError(
            f"this installation lacks the organism {name!r} ({folder} is missing); install "
            "pellucid again from a complete wheel or checkout"
        )
    return folder


def become(model: LanguageModel, folder: Path) -> LanguageModel:
    """Merge an organism's update into a freshly loaded specimen; returns the same model.

    Args:
        model: the specimen, changed.
        folder: as `train_organism` writes it.

    Raises:
        CheckpointError: damaged, or the update of another model.
    """
    manifest = read_manifest(folder, kind=KIND)
    recorded, actual = manifest.parents.get("model"), model.fingerprint()
    if recorded != actual:
        raise CheckpointError(
            f"{folder} is an update of a model with fingerprint {recorded}, this one's is "
            f"{actual}; take the specimen that it was trained on"
        )
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS_FILE} cannot be read ({error})") from None
    merge(model.module, tensors)
    model.finetuned_from = recorded
    return model
