"""Our training step, or the bare encoder product that no exact TopK step can do without.

Modes: a precision, after "sae-" for an SAE in place of a transcoder, or after "gemm-" for the
product alone, written into memory that is already there.
"""

from collections.abc import Callable

import torch

from benchmarks.contestant import Setting, serve
from pellucid.core.types import Site
from pellucid.training.config import TrainConfig
from pellucid.training.layer import LayerTraining


def start(setting: Setting) -> Callable[[], object]:
    precision = setting.mode.rpartition("-")[2]
    if setting.mode.startswith("gemm-"):
        return _bare_product(setting, getattr(torch, precision))
    is_sae = setting.mode.startswith("sae-")
    x, y = setting.x, setting.x if is_sae else setting.y
    config = TrainConfig(
        kind="sae" if is_sae else "transcoder",
        num_features=setting.num_features,
        k=setting.k,
        batch_tokens=len(x),
        precision=precision,
    )
    read = Site("mlp_in", 0)
    training = LayerTraining.start(
        config,
        x,
        y,
        read_site=read,
        write_site=read if is_sae else Site("mlp_out", 0),
        total_tokens=10**9,
        generator=torch.Generator().manual_seed(0),
    )
    return lambda: training.step(x, y)


def _bare_product(setting: Setting, dtype: torch.dtype) -> Callable[[], object]:
    x = setting.x.to(dtype)
    weight = torch.randn(setting.num_features, x.shape[1]).to(x)
    out = x.new_empty(len(x), setting.num_features)
    return lambda: torch.mm(x, weight.T, out=out)


if __name__ == "__main__":
    serve(start, ["torch"])
