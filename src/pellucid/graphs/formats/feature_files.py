"""Feature records as circuit-tracer's page fetches them: one binary file a layer, and an index.

`features/index.json.gz` maps a layer to `{filename, offsets}`; feature f's record fills bytes
`offsets[f]` to `offsets[f + 1]` of the file, none where it has no record. A record is its
length (u32, little-endian) and as many bytes of compressed JSON. We write gzip members, as the
published files have; the page's reader, and ours, take zlib streams too.
"""

import gzip
import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from pellucid.core.errors import CheckpointError, DataError
from pellucid.core.files import atomic_directory
from pellucid.graphs.container import json_value

FOLDER = "features"
INDEX = "index.json.gz"
LENGTH = struct.Struct("<I")
MAX_RECORD = 2**26
"""The most bytes that a record, or 16 times that the index, may unfold to."""
REQUIRED: dict[str, type | tuple[type, ...]] = {
    "index": int,
    "examples_quantiles": list,
    "top_logits": list,
    "bottom_logits": list,
    "act_min": (int, float),
    "act_max": (int, float),
}


def write_feature_files(
    layers: Mapping[int, Iterable[Mapping[str, Any]]],
    folder: str | Path,
    *,
    features: int | None = None,
) -> None:
    """Write `features/` into `folder`, atomically.

    Args:
        layers: for every layer its records by ascending `index`; a generator is fine. A record
            has `index`, `examples_quantiles` (`[{quantile_name, examples}]`; an example has
            `tokens` and as many `tokens_acts_list`), `top_logits`, `bottom_logits`, `act_min` and
            `act_max`, and whatever else its reader knows.
        folder: the dictionary's folder.
        features: how many features a layer has, so that those after the last record are listed.

    Raises:
        DataError: a record lacks a field, is out of order, or its number is out of range.
        StorageError: the disk refuses.
    """
    index = {}
    with atomic_directory(Path(folder) / FOLDER) as temporary:
        for layer, records in layers.items():
            name = f"layer_{int(layer)}.bin"
            offsets = [0]
            with (temporary / name).open("wb") as file:
                for record in records:
                    place = f"layer {layer}, record {record.get('index')!r:.20}"
                    _check(record, place)
                    number = record["index"]
                    if number < len(offsets) - 1 or (features is not None and number >= features):
                        raise DataError(
                            f"feature records: {place} is out of order, repeated or beyond the "
                            "layer's last feature; give them by ascending index"
                        )
                    offsets += offsets[-1:] * (number + 1 - len(offsets))
                    offsets.append(offsets[-1] + file.write(_packed(record, place)))
            offsets += offsets[-1:] * ((features or 0) + 1 - len(offsets))
            index[str(int(layer))] = {"filename": name, "offsets": offsets}
        packed = gzip.compress(json.dumps(index, separators=(",", ":")).encode(), mtime=0)
        (temporary / INDEX).write_bytes(packed)


def _check(record: Mapping[str, Any], place: str) -> None:
    for name, kind in REQUIRED.items():
        if not isinstance(record.get(name), kind) or isinstance(record[name], bool):
            raise DataError(
                f"feature records: {place} has {name} {record.get(name)!r:.30}; see "
                "write_feature_files for what a record holds"
            )
    if record["index"] < 0:
        raise DataError(f"feature records: {place} is negative; features count from 0")
    for quantile in record["examples_quantiles"]:
        for example in quantile.get("examples", []) if isinstance(quantile, Mapping) else [{}]:
            tokens, values = example.get("tokens"), example.get("tokens_acts_list")
            if tokens is None or values is None or len(tokens) != len(values):
                raise DataError(
                    f"feature records: {place} has an example without one activation a token; "
                    "give tokens and tokens_acts_list of one length"
                )


def _packed(record: Mapping[str, Any], place: str) -> bytes:
    try:
        text = json.dumps(json_value(record), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"feature records: {place} is not JSON ({error})") from error
    if len(text) > MAX_RECORD:
        raise DataError(f"feature records: {place} has {len(text)} characters; keep fewer examples")
    data = gzip.compress(text.encode(), mtime=0)
    return LENGTH.pack(len(data)) + data


class FeatureFiles:
    """Random access to feature records.

    Args:
        folder: the dictionary's folder, or its `features` folder.

    Raises:
        CheckpointError: missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.folder = folder if (folder / INDEX).exists() else folder / FOLDER
        path = self.folder / INDEX
        with _damage(path):
            index = json.loads(_unpacked(path.read_bytes(), limit=16 * MAX_RECORD))
            self._files = {int(layer): str(entry["filename"]) for layer, entry in index.items()}
            self._offsets = {int(layer): entry["offsets"] for layer, entry in index.items()}
            for layer, offsets in self._offsets.items():
                if Path(self._files[layer]).name != self._files[layer]:
                    raise ValueError(f"{self._files[layer]!r:.60} lies outside the folder")
                if not offsets or not all(isinstance(offset, int) for offset in offsets):
                    raise ValueError(f"layer {layer} has no list of offsets")
                if offsets[0] < 0 or any(a > b for a, b in pairwise(offsets)):
                    raise ValueError(f"offsets of layer {layer} do not ascend")

    @property
    def layers(self) -> list[int]:
        """The layers that there are files of."""
        return sorted(self._files)

    def features(self, layer: int) -> int:
        """How many features a layer lists, with a record or without."""
        return len(self._layer(layer)) - 1

    def read(self, layer: int, index: int) -> dict[str, Any] | None:
        """One feature's record; None where it has none.

        Raises:
            CheckpointError: a layer or feature that is not listed, or a damaged file.
        """
        offsets = self._layer(layer)
        if not 0 <= index < len(offsets) - 1:
            raise CheckpointError(
                f"{self.folder} lists {len(offsets) - 1} features of layer {layer}, not feature "
                f"{index}; check the number"
            )
        start, stop = offsets[index], offsets[index + 1]
        if start == stop:
            return None
        path = self.folder / self._files[layer]
        with _damage(path), path.open("rb") as file:
            file.seek(start)
            data = file.read(min(stop - start, MAX_RECORD))
            (length,) = LENGTH.unpack(data[: LENGTH.size])
            if len(data) != stop - start or length != len(data) - LENGTH.size:
                raise ValueError(f"feature {index} is cut short")
            record = json.loads(_unpacked(data[LENGTH.size :], limit=MAX_RECORD))
            if not isinstance(record, dict):
                raise ValueError(f"feature {index} is not an object")
            return record

    def records(self, layer: int) -> Iterator[dict[str, Any]]:
        """All records of a layer, by ascending feature number."""
        for index in range(self.features(layer)):
            record = self.read(layer, index)
            if record is not None:
                yield record

    def _layer(self, layer: int) -> list[int]:
        if layer not in self._offsets:
            raise CheckpointError(
                f"{self.folder} has no features of layer {layer}; it has layers {self.layers}"
            )
        return self._offsets[layer]


def _unpacked(data: bytes, *, limit: int) -> bytes:
    """A gzip member or zlib stream unfolded, no further than `limit` bytes."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    result = stream.decompress(data, limit)
    if not stream.eof:
        raise ValueError(f"it is cut short or unfolds to more than {limit} bytes")
    return result


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into one error that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing; give a folder with feature files (see write_feature_files)"
        ) from error
    except (
        OSError,
        zlib.error,
        struct.error,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is damaged ({reason}); restore it from a copy") from error
