"""What a sweep writes of each training: a row of its table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from pellucid.core.errors import CheckpointError
from pellucid.core.files import atomic_file, sha256, write_text
from pellucid.core.manifest import MANIFEST_NAME, read_manifest
from pellucid.core.sealed import SEAL, is_sealed, sealed_text
from pellucid.dictionaries.checkpoint import ARTIFACT_KIND
from pellucid.evaluation.report import Evaluation
from pellucid.training.config import TrainConfig

_MEASURED = "dictionaries"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One training of a sweep. Figures are on held-out text, those of layers averaged.

    Attributes:
        name: of its folder.
        kind: setting.
        activation: setting.
        features: setting.
        k: setting.
        sparsity: setting; None is the default, or that the activation takes none.
        learning_rate: setting; None is the default.
        seed: setting.
        target: what the dictionaries should write: "mlp_out", or "resid_post" for SAEs.
        fvu: fraction of the target's variance unexplained.
        l0: active features a token.
        dead: share of features that never fired.
        ce: cross-entropy with all the MLPs replaced, nats a token; None, as `kl` and `top1`, where
            the dictionaries do not stand in for MLPs.
        kl: KL(original || replaced), nats a token.
        top1: share of positions with the same most likely token.
        seconds: that harvesting and training took, over all its interruptions.
    """

    name: str
    kind: str
    activation: str
    features: int
    k: int
    sparsity: float | None = None
    learning_rate: float | None = None
    seed: int
    target: str
    fvu: float
    l0: float
    dead: float
    ce: float | None
    kl: float | None
    top1: float | None
    seconds: float


def make_row(
    name: str, config: TrainConfig, target: str, evaluation: Evaluation, seconds: float
) -> SweepRow:
    """The row of a training that was evaluated."""
    layers = evaluation.layers
    replaced = None if evaluation.replacement is None else evaluation.replacement.all
    return SweepRow(
        name=name,
        kind=config.kind,
        activation=config.activation,
        features=config.num_features or 0,
        k=config.k,
        sparsity=config.sparsity,
        learning_rate=config.learning_rate,
        seed=config.seed,
        target=target,
        fvu=fmean(layer.fvu for layer in layers),
        l0=fmean(layer.l0 for layer in layers),
        dead=fmean(layer.dead for layer in layers),
        ce=None if replaced is None else replaced.ce,
        kl=None if replaced is None else replaced.kl,
        top1=None if replaced is None else replaced.top1,
        seconds=seconds,
    )


def save_row(row: SweepRow, path: Path, dictionaries: Path) -> None:
    """Keep the row of a folder's dictionaries, so that a resumed sweep need not measure it again.

    The file says of which dictionaries it is, by their manifest's checksum, and has its own.
    """
    record = asdict(row) | {_MEASURED: sha256(dictionaries / MANIFEST_NAME)}
    write_text(path, sealed_text(record))


def load_row(path: Path, dictionaries: Path) -> SweepRow:
    """A row that `save_row` wrote of this folder's dictionaries, which are whole.

    Raises:
        CheckpointError: the file or the dictionaries are damaged, or it is of others.
    """
    read_manifest(dictionaries, kind=ARTIFACT_KIND)
    try:
        text = path.read_bytes().decode()
        record = json.loads(text)
        measured = record.pop(_MEASURED)
        if not is_sealed(record | {_MEASURED: measured}, text):
            raise CheckpointError(f"{path} is damaged (its checksum differs)")
        row = SweepRow(**{name: record[name] for name in record if name != SEAL})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError(f"{path} is not a row of a sweep") from None
    if (row.name, measured) != (dictionaries.name, sha256(dictionaries / MANIFEST_NAME)):
        raise CheckpointError(f"{path} is of other dictionaries than those in {dictionaries}")
    return row


def save_table(rows: Sequence[SweepRow], path: Path) -> Path:
    """Write the rows as Parquet, with each one's share of the seconds of all.

    Raises:
        StorageError: the disk refuses.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[Any, Any] = {int: pa.int64(), str: pa.string()}
    schema = [(each.name, types.get(each.type, pa.float64())) for each in fields(SweepRow)]
    total = sum(row.seconds for row in rows)
    records = [asdict(row) | {"seconds_share": row.seconds / total} for row in rows]
    table = pa.Table.from_pylist(
        records, schema=pa.schema([*schema, ("seconds_share", pa.float64())])
    )
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)
    return path
