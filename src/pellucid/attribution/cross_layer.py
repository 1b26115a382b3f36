"""What the features of a cross-layer transcoder write to layers above their own.

The decoder rows of the active features are gathered when they are needed; they are kept only if
the memory plan says so, since there are about L^2 / 2 of them for every active feature and layer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.replacement.local import LocalReplacement


@dataclass(slots=True, kw_only=True)
class CrossLayerWrites:
    """Sources of lower layers at one layer's MLP output, sorted by position.

    Attributes:
        layer: the layer that is written to.
        counts: how many there are at each position.
        source_layers: of each source, its layer.
        offsets: of each source, its column counted from the first of its layer.
        keep: whether to keep the vectors once gathered.
        kept: the vectors, once gathered, if `keep`.
    """

    local: LocalReplacement
    layer: int
    counts: list[int]
    order: Int[Tensor, " N"]
    source_layers: Int[Tensor, " N"]
    offsets: Int[Tensor, " N"]
    keep: bool = True
    kept: Float[Tensor, "N d"] | None = None

    def vectors(self) -> Float[Tensor, "N d"]:
        """What each source writes."""
        if self.kept is not None:
            return self.kept
        written = torch.cat(
            [
                self.local.layers[lower].active.written(self.layer - lower)
                for lower in _lower_layers(self.local, self.layer)
            ]
        )[self.order]
        if self.keep:
            self.kept = written
        return written


def cross_layer_writes(
    local: LocalReplacement, layer: int, can_keep: Callable[[int], bool]
) -> CrossLayerWrites | None:
    """What lower layers write to `layer`; None where nothing does.

    Args:
        local: the local replacement model.
        layer: the layer that is written to.
        can_keep: whether so many bytes of gathered decoder rows may be kept, as for all layers.
    """
    lower = _lower_layers(local, layer)
    if not lower:
        return None
    active = [local.layers[number].active for number in lower]
    positions = torch.cat([each.positions for each in active]).cpu()
    order = torch.argsort(positions, stable=True)
    layers = torch.repeat_interleave(
        torch.tensor(lower), torch.tensor([len(each) for each in active])
    )
    # In a layer's columns, one error stands behind the features of every earlier position.
    offsets = torch.cat([torch.arange(len(each)) for each in active]) + positions
    counts = torch.bincount(positions, minlength=len(local.run.ids))
    return CrossLayerWrites(
        local=local,
        layer=layer,
        counts=counts.tolist(),
        order=order,
        source_layers=layers[order],
        offsets=offsets[order],
        keep=can_keep(len(local.layers) * len(positions) * local.run.embed[0].nbytes),
    )


def _lower_layers(local: LocalReplacement, layer: int) -> list[int]:
    """The layers below one whose features write to it."""
    return [
        lower
        for lower in range(layer)
        if layer - lower in local.slots(lower) and len(local.layers[lower].active) > 0
    ]
