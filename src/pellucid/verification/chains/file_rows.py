"""Rows of a `.jsonl` or `.parquet` file as mappings, with their place for messages."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid.core.errors import DataError


def read_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row and where it stands, such as `line 3 of chains.jsonl`.

    Raises:
        DataError: the file is missing, of another type, or unreadable.
    """
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{path} has the unknown type {path.suffix!r}; give .jsonl or .parquet")
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}; check the path")
    yield from _READERS[path.suffix.lower()](path)


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); give JSONL in UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"line {number} of {path}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON ({error}); write one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is a {type(row).__name__}; write one object a line")
        yield where, row


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield f"row {number} of {path}", row
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); write it again") from error


_READERS = {".jsonl": _jsonl, ".parquet": _parquet}
