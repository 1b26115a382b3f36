"""Text in files: `.txt`, `.jsonl` and `.parquet`, checked before anything is computed."""

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import final

import pyarrow as pa
import pyarrow.parquet as pq

from pellucid.core.errors import DataError
from pellucid.harvest.text import TextSource

TXT_DOCUMENT_BYTES = 16_384
"""A `.txt` file is cut, at line ends, into documents of about this size."""
_BLOCK = 1 << 20
_STRINGS = (pa.string(), pa.large_string(), pa.string_view())


@final
class FileText(TextSource):
    """A file, or every supported file below a folder in the order of their paths.

    A `.jsonl` line and a `.parquet` row is one document, taken from the field `field`. Reading
    begins with one pass over the bytes that finds text that is not UTF-8 and fingerprints it.

    Raises:
        DataError: missing, empty, of an unknown type, not UTF-8, or without the field.
    """

    def __init__(self, path: str | Path, *, field: str = "text") -> None:
        self.name = str(path)
        self._files = _find_files(Path(path))
        self._field = field
        self.has_fields = any(file.suffix.lower() != ".txt" for file in self._files)
        digest = hashlib.sha256(field.encode())
        for file in self._files:
            digest.update(_check_bytes(file).encode())
        self.fingerprint = digest.hexdigest()[:16]
        for file in self._files:
            next(self._read(file), None)

    def documents(self, start: int = 0) -> Iterator[str]:
        """See `TextSource.documents`; what comes before `start` is read again and dropped."""
        return islice(chain.from_iterable(map(self._read, self._files)), start, None)

    def _read(self, file: Path) -> Iterator[str]:
        return _READERS[file.suffix.lower()](file, self._field)


def _find_files(path: Path) -> list[Path]:
    known = ", ".join(_READERS)
    if not path.exists():
        raise DataError(f"no file or folder {str(path)!r}; give a {known} file or a folder of them")
    if path.is_file():
        files = [path]
        if path.suffix.lower() not in _READERS:
            raise DataError(
                f"{path} has the unknown type {path.suffix!r}; give a {known} file or a folder"
            )
    else:
        files = sorted(f for f in path.rglob("*") if f.is_file() and f.suffix.lower() in _READERS)
        if not files:
            raise DataError(f"folder {path} holds no {known} file; check the path")
    files = [file for file in files if file.stat().st_size > 0]
    if not files:
        raise DataError(f"{path} is empty; give text to read")
    return files


def _check_bytes(file: Path) -> str:
    """The file's SHA-256, having seen that a text file is UTF-8 to its last byte."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")() if file.suffix.lower() != ".parquet" else None
    read = 0
    try:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                read += len(block)
                digest.update(block)
                if decoder:
                    decoder.decode(block)
            if decoder:
                decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        offset = read - len(error.object) + error.start
        raise DataError(
            f"{file} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset}; "
            "convert the file to UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; check its permissions") from error
    return digest.hexdigest()


def _read_txt(file: Path, _field: str) -> Iterator[str]:
    with file.open("rb") as stream:
        while lines := stream.readlines(TXT_DOCUMENT_BYTES):
            yield b"".join(lines).decode().removeprefix("\ufeff")


def _read_jsonl(file: Path, field: str) -> Iterator[str]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _text_field(line, field, f"line {number} of {file}")


def _text_field(line: bytes, field: str, where: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}); write one object a line") from None
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        seen = ", ".join(map(repr, record)) if isinstance(record, dict) else type(record).__name__
        raise DataError(f"{where} has no text field {field!r} (it has {seen}); name the field")
    return str(record[field])


def _read_parquet(file: Path, field: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            if field not in schema.names or schema.field(field).type not in _STRINGS:
                raise DataError(
                    f"{file} has no text column {field!r} (it has {', '.join(schema.names)}); "
                    "name the column"
                )
            for batch in table.iter_batches(columns=[field]):
                yield from (text or "" for text in batch.column(0).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet ({error}); write it again") from error


_READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
