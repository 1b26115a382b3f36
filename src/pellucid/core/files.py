"""Writing files so that a crash, a full disk or Ctrl-C never leaves a half-written artifact."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from pellucid.core.errors import StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a refusal of the disk raised inside into a `StorageError` that names `path`.

    safetensors reports one as its own `SafetensorError`.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"cannot write {path}: {reason}; free space or choose another folder "
            "(anything saved before is intact)"
        ) from error


def sync_directory(path: Path) -> None:
    """Make a rename inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, else it is removed."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise StorageError(f"cannot write {path}: it is not a regular file; choose another path")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            _settle(temporary)
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Put a file's bytes on the disk, readable by all (safetensors writes for the owner alone)."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    path.chmod(0o644)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the place of `path`.

    A folder already at `path` is moved aside first and deleted only after the new one is in
    place, so that at every moment one complete version exists (see `recover_directory`).
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise StorageError(f"cannot write {path}: it is not a folder; choose another path")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            yield temporary
            settle_directory(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def settle_directory(temporary: Path, path: Path) -> None:
    """Put a finished folder's bytes on the disk, and it in the place of `path` beside it."""
    previous = path.with_name(f".{path.name}.previous")
    for file in temporary.rglob("*"):
        if file.is_file():
            _settle(file)
    temporary.chmod(0o755)
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
        path.rename(previous)
    temporary.rename(path)
    sync_directory(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


def recover_directory(path: Path) -> None:
    """Undo an `atomic_directory` that was killed between its two renames, if one was."""
    path = Path(path)
    previous = path.with_name(f".{path.name}.previous")
    if previous.exists() and not path.exists():
        with storage_errors(path), suppress(FileNotFoundError):  # another process was faster
            previous.rename(path)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
