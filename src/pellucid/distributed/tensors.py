"""Tensors in a folder of safetensors, written by all processes and read by any number of them.

Where there are several, `torch.distributed.checkpoint` lays out who writes and reads what, with its
safetensors storage, so that nothing is pickled on disk. A tensor of which each process holds some
rows is a `DTensor`. What one process wrote is read in the same way.
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pellucid.core.errors import CheckpointError
from pellucid.distributed.processes import Processes

if TYPE_CHECKING:
    from torch.distributed.tensor import Placement

_SUFFIX = ".safetensors"
_WRITTEN_BY_SEVERAL = "shard-"


def write_parts(
    folder: Path, parts: Mapping[str, Mapping[str, Tensor]], processes: Processes
) -> None:
    """Write every process's tensors; all of them call this together.

    One process writes a file a part.

    Args:
        folder: exists, on a disk that all processes share.
        parts: by part and name, the same for a tensor in every process that has it; where rows are
            spread over processes, this one's `as_rows`.
        processes: all of them.

    Raises:
        OSError, SafetensorError: the disk refuses, this process's or another's.
    """
    named = {
        part: {f"{part}.{name}": tensor.detach() for name, tensor in tensors.items()}
        for part, tensors in parts.items()
    }
    if processes.mesh is None:
        for part, tensors in named.items():
            whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(whole, folder / f"{part}.safetensors")
        return
    from torch.distributed import checkpoint as dcp  # here: only several processes need it
    from torch.distributed.checkpoint.api import CheckpointException

    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        dcp.save(
            {name: t for part in named.values() for name, t in part.items()}, storage_writer=writer
        )
    except CheckpointException as failed:
        for error, _ in failed.failures.values():
            if isinstance(error, (OSError, SafetensorError)):
                raise error from None
        raise


def read_parts(
    folder: Path,
    parts: Collection[str] | None,
    by_rows: Callable[[str], bool],
    processes: Processes,
    files: Collection[str],
) -> dict[str, dict[str, Tensor]]:
    """Read tensors, whole or this process's rows of them; all processes call this together.

    Args:
        folder: what `write_parts` wrote, by any number of processes.
        parts: which this process needs; by default all.
        by_rows: whether the rows of a tensor of a name are spread over the processes that share
            features.
        processes: all of them.
        files: the names of what was written; any other file of tensors is refused.

    Raises:
        CheckpointError: there is one.
    """
    for path in folder.glob(f"*{_SUFFIX}"):
        if path.name not in files:
            raise CheckpointError(f"{path} is no part of the checkpoint; delete it, and resume")
    names = [name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)]
    by_several = any(name.startswith(_WRITTEN_BY_SEVERAL) for name in names)
    if processes.mesh is None and not by_several:
        found: Mapping[str, Tensor] = {
            name: tensor
            for part in sorted(names if parts is None else parts)
            for name, tensor in _read_whole(folder / f"{part}.safetensors")
        }
    else:
        found = _read_spread(folder, parts, by_rows, processes)
    grouped: dict[str, dict[str, Tensor]] = {}
    for full, tensor in found.items():
        part, _, name = full.partition(".")
        grouped.setdefault(part, {})[name] = tensor
    return grouped


def _read_whole(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, opened for each of them: what was read of it stays mapped till then.

    They are cloned, because results of matrix products may depend on how memory is aligned.
    """
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    for name in names:
        with safe_open(path, framework="pt") as file:
            yield name, file.get_tensor(name).clone()


def _read_spread(
    folder: Path,
    parts: Collection[str] | None,
    by_rows: Callable[[str], bool],
    processes: Processes,
) -> dict[str, Tensor]:
    from torch.distributed import checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(str(folder))
    known: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    state = {
        name: _room(described.size, described.properties.dtype, by_rows(name), processes)
        for name, described in known.items()
        if parts is None or name.partition(".")[0] in parts
    }
    with _quiet():
        dcp.load(state, storage_reader=reader, no_dist=processes.mesh is None)
    return {name: local(tensor) for name, tensor in state.items()}


def as_rows(rows: Tensor, processes: Processes) -> Tensor:
    """This process's rows as part of the tensor that all processes with features hold together."""
    if processes.mesh is None:
        return rows
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(rows, processes.mesh, _by_features())


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _room(size: torch.Size, dtype: torch.dtype, split: bool, processes: Processes) -> Tensor:
    if not split or processes.mesh is None:
        return torch.zeros(size, dtype=dtype)
    from torch.distributed.tensor import zeros

    return zeros(size, dtype=dtype, device_mesh=processes.mesh, placements=_by_features())


def _by_features() -> "list[Placement]":
    """Whole along data and layers, by rows along features."""
    from torch.distributed.tensor import Replicate, Shard

    return [Replicate(), Replicate(), Shard(0)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that one process alone is one process alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
