"""The processes of a training under `torchrun`, or this one alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from pellucid.core.errors import ConfigError
from pellucid.distributed.layout import Layout, parse_layout
from pellucid.distributed.team import Team, Teams

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_WORLD_SIZE = "WORLD_SIZE"
_AXES = ("data", "layers", "features")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Where this process stands among all.

    Attributes:
        layout: how they are arranged.
        teams: the processes that train the same dictionaries.
        layers: the processes that train other layers' dictionaries on the same text.
        everyone: all of them.
        device: of this one.
        mesh: their device mesh, with the axes of the layout; None for one process alone.
    """

    layout: Layout = field(default_factory=Layout)
    teams: Teams = field(default_factory=Teams)
    layers: Team = field(default_factory=Team)
    everyone: Team = field(default_factory=Team)
    device: str = "cpu"
    mesh: "DeviceMesh | None" = None

    @property
    def first(self) -> bool:
        """Whether this process writes the files that one process writes."""
        return self.everyone.rank == 0

    @property
    def first_of_data(self) -> bool:
        """Whether this process is the first of those that read the same text."""
        return self.layers.rank == self.teams.features.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.everyone.group is not None:
            dist.barrier(self.everyone.group)

    def agree(self, *any_of: bool) -> tuple[bool, ...]:
        """By question, whether any process says yes; all of them get the same answers."""
        answers = torch.tensor(any_of, dtype=torch.int32, device=self.device)
        return tuple((self.everyone.sum(answers) > 0).tolist())


ALONE = Processes()


def under_torchrun() -> bool:
    """Whether `torchrun` started this process."""
    return _WORLD_SIZE in os.environ


def world_size() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get(_WORLD_SIZE, "1"))


@contextmanager
def joined(layout: str, device: str) -> Iterator[Processes]:
    """Join the other processes of `torchrun`, and leave them at the end.

    On GPUs each process takes the one of its local rank.

    Args:
        layout: see `parse_layout`.
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: the layout does not fit the number of processes, or `cuda:N` was asked for by
            several processes.
    """
    world = world_size()
    wanted = parse_layout(layout, world)
    if world == 1:
        yield Processes(device=device)
        return
    if ":" in device:
        raise ConfigError(
            f"{world} processes cannot share the device {device}; give cuda, and each takes its own"
        )
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        from torch.distributed.device_mesh import init_device_mesh

        shape = (wanted.data, wanted.layers, wanted.features)
        mesh = init_device_mesh(torch.device(device).type, shape, mesh_dim_names=_AXES)
        data, layers, features = (_team(mesh, axis) for axis in _AXES)
        everyone = Team(world, dist.get_rank(), dist.group.WORLD)
        yield Processes(
            layout=wanted,
            teams=Teams(data, features),
            layers=layers,
            everyone=everyone,
            device=device,
            mesh=mesh,
        )
    finally:
        dist.destroy_process_group()


def _team(mesh: "DeviceMesh", axis: str) -> Team:
    size = mesh.size(_AXES.index(axis))
    if size == 1:
        return Team()
    return Team(size, mesh.get_local_rank(axis), mesh.get_group(axis))
