"""Low-rank updates of a model's weights: W + B A (Hu et al. 2021), trained, kept and merged."""

from collections.abc import Iterable, Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pellucid.core.errors import CheckpointError


@final
class LowRank(nn.Module):
    """The parametrization `W -> W + B A`; B starts at zero, so nothing changes at first.

    Args:
        rows: of W.
        columns: of W.
        rank: of the update.
        generator: draws A, with variance 1 / columns.
    """

    def __init__(self, rows: int, columns: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        drawn = torch.randn(rank, columns, generator=generator) / columns**0.5
        self.down = nn.Parameter(drawn)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """The updated weight."""
        return weight + self.up @ self.down


def linear_layers(module: nn.Module, first_block: int) -> list[str]:
    """Paths of every linear layer of the blocks from `first_block` on.

    Args:
        module: a Llama.
        first_block: number of the first block.
    """
    paths = []
    for path, layer in module.named_modules():
        parts = path.split(".")
        inside = (
            len(parts) > 3 and parts[:2] == ["model", "layers"] and int(parts[2]) >= first_block
        )
        if inside and isinstance(layer, nn.Linear):
            paths.append(path)
    return paths


def mlp_layers(block: int) -> tuple[str, str, str]:
    """Paths of the three linear layers of one block's MLP.

    Args:
        block: its number.
    """
    gate, up, down = (f"model.layers.{block}.mlp.{name}_proj" for name in ("gate", "up", "down"))
    return gate, up, down


def attach(module: nn.Module, paths: Iterable[str], *, rank: int, seed: int) -> dict[str, LowRank]:
    """Make updates of some linear layers trainable; their own weights stay as they are.

    Args:
        module: a Llama, changed.
        paths: of the layers.
        rank: of every update.
        seed: of their beginnings.
    """
    generator = torch.Generator().manual_seed(seed)
    updates = {}
    for path in paths:
        layer = module.get_submodule(path)
        assert isinstance(layer, nn.Linear)
        updates[path] = LowRank(layer.out_features, layer.in_features, rank, generator)
        layer.weight.requires_grad_(False)
        parametrize.register_parametrization(layer, "weight", updates[path])
    return updates


def as_tensors(updates: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """The updates as half-precision tensors named `PATH.up` and `PATH.down`."""
    return {
        f"{path}.{name}": getattr(update, name).detach().half().contiguous()
        for path, update in updates.items()
        for name in ("up", "down")
    }


@torch.no_grad()
def merge(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Add updates written by `as_tensors` to a model's weights.

    Args:
        module: the model they were trained on, changed.
        tensors: `PATH.up` and `PATH.down`.

    Raises:
        CheckpointError: the updates do not fit the model.
    """
    layers: dict[str, Any] = dict(module.named_modules())
    for path in sorted({name.rpartition(".")[0] for name in tensors}):
        up, down = tensors.get(f"{path}.up"), tensors.get(f"{path}.down")
        weight = getattr(layers.get(path), "weight", None)
        if up is None or down is None or weight is None:
            raise CheckpointError(
                f"the update of {path!r} is not whole, or the model has no such layer; take the "
                "model that it was trained on"
            )
        if (up.shape[0], down.shape[1]) != tuple(weight.shape) or up.shape[1] != down.shape[0]:
            raise CheckpointError(
                f"the update of {path!r} is {tuple(up.shape)} times {tuple(down.shape)} and the "
                f"weight {tuple(weight.shape)}; take the model that it was trained on"
            )
        weight += (up.float() @ down.float()).to(weight)
