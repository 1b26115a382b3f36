"""Text streamed from the `datasets` hub."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from pellucid.core.errors import DataError
from pellucid.harvest.text import TextSource


@final
class DatasetText(TextSource):
    """The training split of a dataset, streamed: nothing is downloaded ahead of its use.

    Args:
        name: the dataset's name, with its configuration where it has several: `owner/name` or
            `owner/name:configuration`.
        field: the column that holds the text.

    Raises:
        DataError: the dataset does not exist, cannot be reached, or has no such text column.
    """

    def __init__(self, name: str, *, field: str = "text") -> None:
        from datasets import load_dataset  # here: importing it takes seconds

        self.name, self._field, self.has_fields = name, field, True
        self.fingerprint = f"{name}-{field}"
        path, _, configuration = name.partition(":")
        try:
            with _quiet_client():
                self._rows = load_dataset(
                    path, configuration or None, split="train", streaming=True
                )
        except Exception as error:  # the hub client raises errors of many libraries
            raise DataError(
                f"no file or folder {name!r} here, and the dataset of that name cannot be opened "
                f"({_first_line(error)}); check the name and the network"
            ) from error
        next(self.documents(), None)

    def documents(self, start: int = 0) -> Iterator[str]:
        """See `TextSource.documents`."""
        rows = iter(self._rows.skip(start) if start else self._rows)
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # as above
                raise DataError(
                    f"dataset {self.name} cannot be read further ({_first_line(error)}); check "
                    "the network and resume"
                ) from error
            if row is None:
                return
            if not isinstance(row.get(self._field), str):
                raise DataError(
                    f"dataset {self.name} has no text column {self._field!r} (it has "
                    f"{', '.join(row)}); name the column"
                )
            yield row[self._field]


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the hub client from logging every try: what it ends with is in our error."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        client.setLevel(level)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
