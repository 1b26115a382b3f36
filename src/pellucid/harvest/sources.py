"""From what a user writes after `--data` to a text source."""

import re
from pathlib import Path

from pellucid.core.errors import DataError
from pellucid.harvest.files import FileText
from pellucid.harvest.hub import DatasetText
from pellucid.harvest.text import SpecimenText, TextSource

_DATASET_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")


def open_text(data: str | Path | TextSource, *, field: str = "text", seed: int = 0) -> TextSource:
    """The text that `data` names, checked.

    Args:
        data: `specimen`; a `.txt`, `.jsonl` or `.parquet` file; a folder of them; a dataset of the
            hub, `owner/name` or `owner/name:configuration`; or a source, returned as it is.
        field: the field or column of the text, where documents have several.
        seed: the seed of the specimen's corpus.

    Raises:
        DataError: it cannot be found or read.
    """
    if isinstance(data, TextSource):
        return data
    if data == "specimen":
        return SpecimenText(seed=seed)
    path = Path(data)
    named_file = isinstance(data, Path) or path.suffix.lower() in (".txt", ".jsonl", ".parquet")
    if path.exists() or named_file:
        return FileText(path, field=field)
    if not _DATASET_NAME.fullmatch(str(data)):
        raise DataError(
            f"no file or folder {str(data)!r}; give a file, a folder, 'specimen' or a dataset of "
            "the hub as owner/name"
        )
    return DatasetText(str(data), field=field)
