"""From what a user writes after `--data` to a text source."""

import re
from collections.abc import Sequence
from pathlib import Path

from pellucid.core.errors import ConfigError, DataError
from pellucid.harvest.files import FileText
from pellucid.harvest.hub import DatasetText
from pellucid.harvest.mixed import MixedText
from pellucid.harvest.text import SpecimenText, TextSource

_DATASET_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")


def open_text(
    data: str | Path | TextSource | Sequence[str | Path | TextSource],
    *,
    field: str | None = None,
    seed: int = 0,
) -> TextSource:
    """The text that `data` names, checked.

    Args:
        data: `specimen`; a `.txt`, `.jsonl` or `.parquet` file; a folder of them; a dataset of the
            hub, `owner/name` or `owner/name:configuration`; or a source, returned as it is. Several
            of them make a `MixedText`, where a string may end in `=WEIGHT` (1 if it does not).
        field: the field or column of the text, where documents have several; "text" by default.
        seed: the seed of the specimen's corpus.

    Raises:
        DataError: it cannot be found or read.
        ConfigError: weights that are not positive, or a field where nothing has any.
    """
    if isinstance(data, (str, Path, TextSource)):
        named = [(data, 1.0)]
    else:
        named = [_weighted(each) for each in data]
    if not named:
        raise DataError("no text is given; give a file, a folder, 'specimen' or a dataset")
    sources = [_open(source, field or "text", seed) for source, _ in named]
    if field is not None and not any(source.has_fields for source in sources):
        raise ConfigError(
            f"field {field!r} means nothing to {', '.join(source.name for source in sources)}; "
            "leave it out: only .jsonl, .parquet and datasets have fields"
        )
    if len(sources) == 1:
        return sources[0]
    return MixedText(sources, [weight for _, weight in named])


def _weighted(data: str | Path | TextSource) -> tuple[str | Path | TextSource, float]:
    """A source and its weight; a name that is a file's, as it stands, is only a name."""
    if not isinstance(data, str) or Path(data).exists():
        return data, 1.0
    name, equals, weight = data.rpartition("=")
    try:
        return (name, float(weight)) if equals else (data, 1.0)
    except ValueError:
        return data, 1.0


def _open(data: str | Path | TextSource, field: str, seed: int) -> TextSource:
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
