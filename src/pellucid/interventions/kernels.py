"""The arithmetic of operations on values, many edits at once.

A kernel takes the selected values [n, w], and for each of them which member of its group edits it;
it returns the new values. Shape legend: m members, n selected tokens, w width of the place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.interventions.operations import (
    Add,
    Custom,
    Operation,
    PatchFrom,
    ProjectOut,
    Scale,
    Set,
)
from pellucid.interventions.selection import Entries, Selection

ValueKernel = Callable[[Float[Tensor, "n w"], Entries], Float[Tensor, "n w"]]


@dataclass(slots=True, eq=False)
class Source:
    """Values of another run, for `patch_from`.

    Attributes:
        values: of each member's own source prompt.
        index: for each pair and position of a row, which of the source's positions takes it.
    """

    values: Float[Tensor, "m T w"]
    index: Int[Tensor, "P L"] | None = None

    def fill(self, operations: Sequence[PatchFrom], selection: Selection) -> None:
        """Align the selected positions with the source's.

        Raises:
            InterventionError: a position that the source lacks, or another number of them.
        """
        table = selection.table
        index = np.zeros(table.shape, dtype=np.int64)
        for pair, member in enumerate(selection.members):
            operation, chosen = operations[member], table[pair].nonzero()[0]
            taken = chosen if operation.positions is None else np.array(operation.positions)
            if len(taken) != len(chosen):
                raise InterventionError(
                    f"patch_from names {len(taken)} positions of the other prompt for "
                    f"{len(chosen)} selected tokens; give one for each"
                )
            if len(taken) and not 0 <= taken.min() <= taken.max() < len(operation.ids):
                raise InterventionError(
                    f"patch_from takes position {int(taken.max())} of a prompt of "
                    f"{len(operation.ids)} tokens; select tokens that it has, or give positions"
                )
            index[pair, chosen] = taken
        self.index = torch.from_numpy(index).to(self.values.device)


def value_kernel(operations: Sequence[Operation], source: Source | None = None) -> ValueKernel:
    """The kernel of operations of one kind.

    Args:
        operations: one a member.
        source: for `patch_from`, the values of the other runs.
    """
    first = operations[0]
    if isinstance(first, Add):
        return _add([each for each in operations if isinstance(each, Add)])
    if isinstance(first, Set):
        return _set([each for each in operations if isinstance(each, Set)])
    if isinstance(first, Scale):
        factors = torch.tensor([each.factor for each in operations if isinstance(each, Scale)])
        return lambda x, entries: x * factors.to(x)[entries.members, None]
    if isinstance(first, ProjectOut):
        return _project_out([each for each in operations if isinstance(each, ProjectOut)])
    if isinstance(first, Custom):
        return lambda x, entries: first.function(x)
    assert isinstance(first, PatchFrom) and source is not None, first
    return _patch(source)


def _add(operations: list[Add]) -> ValueKernel:
    scaled = [each.vector * each.strength for each in operations if each.vector is not None]
    vectors = torch.stack(scaled)
    return lambda x, entries: x + vectors.to(x)[entries.members]


def _set(operations: list[Set]) -> ValueKernel:
    values = torch.stack([torch.as_tensor(each.value, dtype=torch.float32) for each in operations])
    if values.ndim == 1:
        return lambda x, entries: values.to(x)[entries.members, None].expand_as(x)
    return lambda x, entries: values.to(x)[entries.members]


def _project_out(operations: list[ProjectOut]) -> ValueKernel:
    bases = [_orthonormal(each.directions) for each in operations]
    if len(bases) == 1:
        return lambda x, entries: x - (x @ bases[0].to(x).T) @ bases[0].to(x)
    rank = max(len(basis) for basis in bases)
    padded = [torch.nn.functional.pad(basis, (0, 0, 0, rank - len(basis))) for basis in bases]
    stacked = torch.stack(padded)

    def project(x: Tensor, entries: Entries) -> Tensor:
        own_nkw = stacked.to(x)[entries.members]
        return x - torch.einsum("nw,nkw,nkv->nv", x, own_nkw, own_nkw)

    return project


def _orthonormal(directions: Float[Tensor, "k d"]) -> Float[Tensor, "r d"]:
    """An orthonormal basis of the rows' span."""
    unit = (directions / directions.norm(dim=1, keepdim=True)).double()
    _, sizes, rows = torch.linalg.svd(unit, full_matrices=False)
    return rows[sizes > sizes[0] * 1e-6].float()


def _patch(source: Source) -> ValueKernel:
    def patch(x: Tensor, entries: Entries) -> Tensor:
        assert source.index is not None
        taken = source.index[entries.pairs, entries.positions]
        return source.values[entries.members, taken].to(x)

    return patch
