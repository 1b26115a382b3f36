"""sparsify reads our exports and writes its own. Runs in its environment."""

from pathlib import Path

import torch
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor

from benchmarks.interop_cases import FEATURES, LAYERS, WIDTH, Case, K, draw, serve

KINDS = ("sae", "transcoder", "skip-transcoder")


def output(coders: list[SparseCoder], x: Tensor) -> Tensor:
    return torch.stack([coder(x[layer]).sae_out for layer, coder in enumerate(coders)])


def read(home: Path, case: Case, x: Tensor) -> Tensor:
    loaded = SparseCoder.load_many(str(home), local=True)
    return output([loaded[name] for name in sorted(loaded)], x)


def make(home: Path, case: Case, x: Tensor) -> Tensor:
    coders = []
    for layer in range(LAYERS):
        config = SparseCoderConfig(
            num_latents=FEATURES,
            k=K,
            transcode=case.kind != "sae",
            skip_connection=case.kind == "skip-transcoder",
        )
        coder = SparseCoder(WIDTH, config)
        for number, parameter in enumerate(coder.parameters()):
            parameter.data = draw(*parameter.shape, seed=10 * layer + number)
        coder.save_to_disk(
            home / (f"layers.{layer}" if case.kind == "sae" else f"layers.{layer}.mlp")
        )
        coders.append(coder)
    return output(coders, x)


if __name__ == "__main__":
    serve(read, {Case("sparsify", kind, "topk"): make for kind in KINDS}, ["eai-sparsify", "torch"])
