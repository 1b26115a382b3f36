"""What a sweep writes of each training: a row of its table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from pellucid.core.errors import CheckpointError
from pellucid.core.files import atomic_file, write_text
from pellucid.core.sealed import SEAL, is_sealed, sealed_text
from pellucid.evaluation.report import Evaluation
from pellucid.training.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One training of a sweep. Figures are on held-out text, those of layers averaged.

    Attributes:
        name: of its folder.
        kind: setting.
        activation: setting.
        features: setting.
        k: setting.
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


def save_row(row: SweepRow, path: Path) -> None:
    """Keep a row, so that a resumed sweep need not measure it again."""
    write_text(path, sealed_text(asdict(row)))


def load_row(path: Path) -> SweepRow:
    """A row that `save_row` wrote.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        text = path.read_bytes().decode()
        record = json.loads(text)
        if not is_sealed(record, text):
            raise CheckpointError(
                f"{path} is damaged (its checksum differs); delete it and it is measured again"
            )
        return SweepRow(**{name: record[name] for name in record if name != SEAL})
    except (OSError, ValueError, TypeError):
        raise CheckpointError(
            f"{path} is not a row of a sweep; delete it and it is measured again"
        ) from None


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
