"""Writing matplotlib figures, and which files they may go to."""

from pathlib import Path
from typing import Any

from pellucid.core.errors import ConfigError
from pellucid.core.files import atomic_file

PICTURES = (".png", ".svg")


def check_picture(path: Path) -> None:
    """Check the name of a picture before anything is drawn.

    Raises:
        ConfigError: it ends in something else than .png or .svg.
    """
    if path.suffix not in PICTURES:
        raise ConfigError(
            f"{path} ends in {path.suffix!r}; pictures end in {' or '.join(PICTURES)}"
        )


def save_picture(figure: Any, path: Path) -> Path:
    """Write a matplotlib figure.

    Args:
        figure: to write.
        path: ends in .png or .svg.

    Raises:
        ConfigError: it ends in something else.
        StorageError: it cannot be written.
    """
    check_picture(path)
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
    return path
