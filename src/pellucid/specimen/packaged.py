"""Where the shipped weights lie."""

from pathlib import Path

from pellucid.core.errors import ModelError

_WEIGHTS = Path(__file__).parent / "weights"


def _shipped(name: str) -> Path:
    folder = _WEIGHTS / name
    if not folder.is_dir():
        raise ModelError(
            f"this installation lacks the specimen's {name} ({folder} is missing); install "
            "pellucid again from a complete wheel or checkout"
        )
    return folder


def model_path() -> Path:
    """The folder of the shipped model; plain `AutoModelForCausalLM.from_pretrained` loads it.

    Raises:
        ModelError: the package was installed without its weights.
    """
    return _shipped("model")


def transcoders_path() -> Path:
    """The folder of the shipped transcoders, one a layer.

    Raises:
        ModelError: the package was installed without its weights.
    """
    return _shipped("transcoders")
