"""A table of steps: one row a step, with its labels and everything that was read of it.

Four kinds of columns, by the shape of what they hold:

    columns   one value a step: labels, places, free scores, fingerprints of graphs
    arrays    one array of the same shape a step: pooled hidden states [N, sites, d]
    bags      sparse counts over a large vocabulary [N, V]: activations or influence by feature
    ragged    one row a token of the step [T, ...], T differs: hidden states of each token

Every set has the columns of `LABELS`; what else it has depends on what was read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int64

from pellucid.core.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LABELS: Mapping[str, str] = {
    "wrong": "whether the step is locally wrong (the label that verifiers predict)",
    "wrong_so_far": "whether its value is no longer the question's (the global label)",
    "first_error": "whether it is its chain's first wrong step",
    "error": "kind of error, '' where it is right",
    "group": "of its question: never in training and in test",
    "source": "what wrote it, such as 'plain' or 'planted:dropped-minus'",
    "language": "arithmetic, boolean or text",
    "chain": "number of its chain in its source",
    "number": "of the step in its chain, 0 for the first",
    "operators": "in the question",
    "remaining": "operators in the expression that it rewrites",
    "start": "place of its first token in the chain, the special first token counted",
    "tokens": "how many tokens it has",
    "text": "the step itself",
    "before": "what it rewrites or follows",
    "weight": "how many steps it stands for (right steps may be sampled)",
}
"""Column -> what it says; every `StepSet` has them."""


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Arrays of different lengths, one after another.

    Attributes:
        values: all rows [T, ...].
        lengths: how many rows belong to each step; they sum to T.
    """

    values: np.ndarray
    lengths: Int64[np.ndarray, " N"]

    def parts(self) -> list[np.ndarray]:
        """The array of each step."""
        return np.split(self.values, np.cumsum(self.lengths)[:-1])

    def select(self, rows: Int64[np.ndarray, " n"]) -> "Ragged":
        """Those of some steps, in the order given."""
        begins = np.cumsum(self.lengths) - self.lengths
        places = [np.arange(begins[r], begins[r] + self.lengths[r]) for r in rows]
        where = np.concatenate(places) if places else np.zeros(0, dtype=np.int64)
        return Ragged(self.values[where], self.lengths[rows])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepSet:
    """N steps; see the module for the four kinds of columns.

    Attributes:
        columns: name -> one value a step; `LABELS` among them.
        arrays: name -> [N, ...].
        bags: name -> sparse [N, V].
        ragged: name -> one array a step.
        record: what was read and how (model, dictionaries, settings), JSON-able.

    Raises:
        DataError: a label is missing, or a column has another length.
    """

    columns: Mapping[str, np.ndarray]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    bags: "Mapping[str, csr_matrix]" = field(default_factory=dict)
    ragged: Mapping[str, Ragged] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if missing := [name for name in LABELS if name not in self.columns]:
            raise DataError(f"the steps lack the columns {', '.join(missing)}; collect them again")
        lengths = {
            name: len(values) for name, values in (*self.columns.items(), *self.arrays.items())
        }
        lengths |= {name: bag.shape[0] for name, bag in self.bags.items()}
        lengths |= {name: len(each.lengths) for name, each in self.ragged.items()}
        wrong = {name: n for name, n in lengths.items() if n != len(self)}
        if wrong:
            name, count = next(iter(wrong.items()))
            raise DataError(f"column {name!r} has {count} rows for {len(self)} steps")

    def __len__(self) -> int:
        return len(self.columns["wrong"])

    @property
    def wrong(self) -> Bool[np.ndarray, " N"]:
        """The label that verifiers predict: True for a step that is locally wrong."""
        return self.columns["wrong"].astype(bool)

    def named(self, prefix: str) -> list[str]:
        """Names of the columns that begin with a prefix, such as `graph.`, sorted."""
        return sorted(name for name in self.columns if name.startswith(prefix))

    def matrix(self, names: Sequence[str]) -> np.ndarray:
        """Some columns side by side as float64 [N, len(names)].

        Raises:
            DataError: there is no such column.
        """
        if missing := [name for name in names if name not in self.columns]:
            raise DataError(
                f"these steps were collected without {', '.join(missing)}; collect them again with "
                "the same readings"
            )
        if not names:
            return np.zeros((len(self), 0))
        return np.column_stack([np.asarray(self.columns[name], dtype=np.float64) for name in names])

    def select(self, rows: np.ndarray) -> "StepSet":
        """Some steps (numbers or a mask), in the order given."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return StepSet(
            columns={name: values[rows] for name, values in self.columns.items()},
            arrays={name: values[rows] for name, values in self.arrays.items()},
            bags={name: bag[rows] for name, bag in self.bags.items()},
            ragged={name: each.select(rows) for name, each in self.ragged.items()},
            record=self.record,
        )

    def with_columns(self, **columns: np.ndarray) -> "StepSet":
        """The same steps with columns added or replaced."""
        return StepSet(
            columns={**self.columns, **columns},
            arrays=self.arrays,
            bags=self.bags,
            ragged=self.ragged,
            record=self.record,
        )


def concatenate(sets: Sequence[StepSet]) -> StepSet:
    """The steps of several sets with the same columns, one after another.

    Raises:
        DataError: none is given, or they were read in different ways.
    """
    if not sets:
        raise DataError("there are no steps to put together; collect some")
    from scipy.sparse import vstack

    first = sets[0]
    for kind in ("columns", "arrays", "bags", "ragged"):
        names = set(getattr(first, kind))
        for other in sets[1:]:
            if differ := names ^ set(getattr(other, kind)):
                raise DataError(
                    f"one set of steps has {', '.join(sorted(differ))} and another has not; "
                    "collect both with the same readings"
                )
    return StepSet(
        columns={n: np.concatenate([each.columns[n] for each in sets]) for n in first.columns},
        arrays={n: np.concatenate([each.arrays[n] for each in sets]) for n in first.arrays},
        bags={n: vstack([each.bags[n] for each in sets], format="csr") for n in first.bags},
        ragged={
            n: Ragged(
                np.concatenate([each.ragged[n].values for each in sets]),
                np.concatenate([each.ragged[n].lengths for each in sets]),
            )
            for n in first.ragged
        },
        record=first.record,
    )


def write_steps(steps: StepSet, folder: Path) -> list[str]:
    """Write a set into an existing folder as Parquet and safetensors; returns the file names.

    Columns go to `steps.parquet`, everything else to `readings.safetensors`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    pq.write_table(pa.table({n: pa.array(v) for n, v in steps.columns.items()}), folder / COLUMNS)
    tensors: dict[str, np.ndarray] = {f"arrays/{n}": v for n, v in steps.arrays.items()}
    for name, bag in steps.bags.items():
        tensors |= {f"bags/{name}/{part}": getattr(bag, part) for part in _BAG_PARTS}
        tensors[f"bags/{name}/shape"] = np.array(bag.shape, dtype=np.int64)
    for name, each in steps.ragged.items():
        tensors |= {f"ragged/{name}/values": each.values, f"ragged/{name}/lengths": each.lengths}
    save_file({n: np.ascontiguousarray(v) for n, v in tensors.items()}, folder / READINGS)
    return [COLUMNS, READINGS]


def read_steps(folder: Path, record: Mapping[str, Any] | None = None) -> StepSet:
    """Read what `write_steps` wrote.

    Raises:
        DataError: the files are missing or are no steps.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    from scipy.sparse import csr_matrix

    try:
        table = pq.read_table(folder / COLUMNS)
        tensors = load_file(folder / READINGS)
    except (OSError, pa.ArrowException, SafetensorError) as error:
        raise DataError(f"{folder} holds no steps ({error}); collect them again") from error
    columns = {name: table[name].to_numpy() for name in table.column_names}
    kinds: dict[str, dict[str, Any]] = {"arrays": {}, "bags": {}, "ragged": {}}
    for key, values in tensors.items():
        kind, name, *part = key.split("/")
        if part:
            kinds[kind].setdefault(name, {})[part[0]] = values
        else:
            kinds[kind][name] = values
    return StepSet(
        columns=columns,
        arrays=kinds["arrays"],
        bags={
            name: csr_matrix(tuple(parts[p] for p in _BAG_PARTS), shape=tuple(parts["shape"]))
            for name, parts in kinds["bags"].items()
        },
        ragged={name: Ragged(**parts) for name, parts in kinds["ragged"].items()},
        record=record or {},
    )


COLUMNS, READINGS = "steps.parquet", "readings.safetensors"
_BAG_PARTS = ("data", "indices", "indptr")
