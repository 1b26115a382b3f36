"""Our training step, or the bare encoder product that no exact TopK step can do without.

Modes: `product:PRECISION` for the product alone, written into memory that is already there, or
`KIND:ACTIVATION:PRECISION`; a cross-layer transcoder is one of `CROSS_LAYERS` layers.
"""

from collections.abc import Callable

import torch

from benchmarks.contestant import Setting, serve
from pellucid.core.types import Site
from pellucid.training.config import TrainConfig
from pellucid.training.layer import LayerTraining, step_together

CROSS_LAYERS = 2


def start(setting: Setting) -> Callable[[], object]:
    *what, precision = setting.mode.split(":")
    if what == ["product"]:
        return _bare_product(setting, getattr(torch, precision))
    kind, activation = what
    layers = CROSS_LAYERS if kind == "clt" else 1
    x, y = setting.x, setting.x if kind == "sae" else setting.y
    config = TrainConfig(
        kind=kind,
        activation=activation,
        num_features=setting.num_features,
        k=setting.k,
        batch_tokens=len(x),
        precision=precision,
    )
    trainings = [
        LayerTraining.start(
            config,
            x,
            y,
            read_site=Site("mlp_in", layer),
            write_site=Site("mlp_in" if kind == "sae" else "mlp_out", layer),
            total_tokens=10**9,
            generator=torch.Generator().manual_seed(layer),
            later=[y] * (layers - 1 - layer),
        )
        for layer in range(layers)
    ]
    return lambda: step_together(trainings, [x] * layers, [y] * layers)


def _bare_product(setting: Setting, dtype: torch.dtype) -> Callable[[], object]:
    x = setting.x.to(dtype)
    weight = torch.randn(setting.num_features, x.shape[1]).to(x)
    out = x.new_empty(len(x), setting.num_features)
    return lambda: torch.mm(x, weight.T, out=out)


if __name__ == "__main__":
    serve(start, ["torch"])
