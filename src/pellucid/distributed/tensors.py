"""Tensors in a folder of safetensors, written by all processes and read by any number of them.

`torch.distributed.checkpoint` lays out who writes and reads what; its safetensors storage is used,
so that nothing is pickled on disk. A tensor of which each process holds some rows is a `DTensor`.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, zeros

from pellucid.distributed.processes import Processes

_ROWS: list[Placement] = [Replicate(), Replicate(), Shard(0)]


def write_shared(folder: Path, tensors: Mapping[str, Tensor], processes: Processes) -> None:
    """Write every process's tensors; all of them call this together.

    Args:
        folder: exists, on a disk that all processes share.
        tensors: by a name that is the same for a tensor in every process that has it.
        processes: all of them.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    state = {name: tensor.detach() for name, tensor in tensors.items()}
    with _quiet():
        dcp.save(state, storage_writer=writer, no_dist=processes.mesh is None)


def read_shared(
    folder: Path,
    wanted: Callable[[str], bool],
    split: Callable[[str], bool],
    processes: Processes,
) -> dict[str, Tensor]:
    """Read tensors, whole or this process's rows of them; all processes call this together.

    Args:
        folder: what `write_shared` or one process wrote.
        wanted: whether this process needs the tensor of a name.
        split: whether the rows of a tensor are spread over the processes that share features.
        processes: all of them.
    """
    reader = HuggingFaceStorageReader(str(folder))
    known: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    state = {
        name: _room(described.size, described.properties.dtype, split(name), processes)
        for name, described in known.items()
        if wanted(name)
    }
    with _quiet():
        dcp.load(state, storage_reader=reader, no_dist=processes.mesh is None)
    return {name: local(tensor) for name, tensor in state.items()}


def as_rows(rows: Tensor, processes: Processes) -> Tensor:
    """This process's rows as part of the tensor that all processes with features hold together."""
    if processes.mesh is None:
        return rows
    return DTensor.from_local(rows, processes.mesh, _ROWS)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _room(size: torch.Size, dtype: torch.dtype, split: bool, processes: Processes) -> Tensor:
    if not split or processes.mesh is None:
        return torch.zeros(size, dtype=dtype)
    return zeros(size, dtype=dtype, device_mesh=processes.mesh, placements=_ROWS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that one process alone is one process alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
