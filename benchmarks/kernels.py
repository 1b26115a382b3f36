"""What do the Triton kernels take on a GPU, beside their definition and stock torch?

    python -m benchmarks.kernels [--sparsify-python PATH]

Each kernel is timed with its inputs in place (median of the repeats, the GPU waited for), then
whole training steps, each side in a process of its own: ours in both precisions, and sparsify's
where an interpreter that has it is given (`benchmarks/peers/requirements-sparsify.txt`). Without a
GPU there is nothing to measure, and it ends with code 2.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import hardware, versions
from benchmarks.train_step import OURS, SPARSIFY, start_side, write_activations
from pellucid.core.types import SparseCodes
from pellucid.kernels import reference
from pellucid.kernels.pairs import pair_by_feature

RESULTS = Path(__file__).parent / "results" / "kernels.json"
STEPS = {  # name -> (module, mode)
    "encoder product, bfloat16": (OURS, "product:bfloat16"),
    "pellucid, float32": (OURS, "float32"),
    "pellucid, bfloat16": (OURS, "transcoder:topk:bfloat16"),
    "sparsify, default": (SPARSIFY, "default"),
    "sparsify, autocast": (SPARSIFY, "autocast"),
}
Ways = dict[str, Callable[[], Any]]


def ways(
    tokens: int, width: int, num_features: int, k: int, dtype: torch.dtype, device: str
) -> dict[str, Ways]:
    """Every kernel on one problem, and each way of doing it: ours is called "pellucid"."""
    from pellucid.kernels import triton as ours

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    x, d_y = normal(tokens, width), normal(tokens, width)
    W_enc, W_dec = normal(num_features, width), normal(num_features, width)
    low, W_low, b_low = x.to(dtype), W_enc.to(dtype), normal(num_features).to(dtype)
    pre = functional.linear(low, W_low, b_low)
    chosen, indices = reference.relu_topk(pre, k)
    values = chosen.float()
    pairs = pair_by_feature([SparseCodes(values, indices, num_features)])

    def product_then_topk() -> Any:
        return ours.relu_topk(functional.linear(low, W_low, b_low), k)

    return {
        "top-k": {
            "pellucid": lambda: ours.relu_topk(pre, k),
            "definition: torch.topk": lambda: reference.relu_topk(pre, k),
        },
        "product and top-k": {
            "pellucid": lambda: ours.linear_relu_topk(low, W_low, b_low, k),
            "torch's product, our top-k": product_then_topk,
            "definition": lambda: reference.linear_relu_topk(low, W_low, b_low, k),
        },
        "decoding": {
            "pellucid": lambda: ours.decode(values, indices, W_dec),
            "embedding_bag": lambda: functional.embedding_bag(
                indices, W_dec, per_sample_weights=values, mode="sum"
            ),
            "definition": lambda: reference.decode(values, indices, W_dec),
        },
        "gradients of rows": {
            "pellucid": lambda: ours.row_gradients(pairs, d_y, x, W_dec),
            "definition": lambda: reference.row_gradients(pairs, d_y, x, W_dec),
        },
    }


def timed(way: Callable[[], Any]) -> float | None:
    """Milliseconds of one call, or None where the GPU's memory does not hold it."""
    from triton.testing import do_bench

    try:
        return float(do_bench(way, warmup=100, rep=500, return_mode="median"))
    except torch.cuda.OutOfMemoryError:
        return None


def kernels(options: argparse.Namespace) -> dict[str, dict[str, float | None]]:
    problem = (options.tokens, options.width, options.num_features, options.k)
    found: dict[str, dict[str, float | None]] = {}
    for kernel, each in ways(*problem, torch.bfloat16, "cuda").items():
        found[kernel] = {name: timed(way) for name, way in each.items()}
        for name, taken in found[kernel].items():
            shown = "out of memory" if taken is None else f"{taken:.3f} ms"
            print(f"{kernel:20s} {name:28s} {shown}", flush=True)
    return found


def steps(options: argparse.Namespace) -> dict[str, Any]:
    """Whole training steps, one a side a round, after two rounds to warm up."""
    pythons = {OURS: sys.executable, SPARSIFY: options.sparsify_python}
    with tempfile.TemporaryDirectory() as folder:
        activations = Path(folder) / "activations.safetensors"
        write_activations(activations, options.tokens, options.width)
        flags = {
            "activations": activations,
            "num-features": options.num_features,
            "k": options.k,
            "threads": 1,
            "device": "cuda",
        }
        found = {}
        for name, (module, mode) in STEPS.items():
            if pythons[module]:
                side = start_side(pythons[module], module, mode, flags)
                side.versions = side.answer()
                for _ in range(options.rounds + 2):
                    side.step()
                side.process.communicate()
                del side.costs[:2]
                taken = side.median("wall_s") * 1e3
                found[name] = {"ms": taken, "versions": side.versions}
                print(f"{'step':20s} {name:28s} {taken:.2f} ms", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sparsify-python", help="interpreter of an environment with eai-sparsify")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--num-features", type=int, default=24576)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU is at hand, so there is nothing to measure", file=sys.stderr)
        sys.exit(2)
    setting = {name: getattr(options, name) for name in ("tokens", "width", "num_features", "k")}
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware() | {"gpu": torch.cuda.get_device_name()},
        "versions": versions(["torch", "triton"]),
        "setting": setting,
        "kernels_ms": kernels(options),
        "steps": steps(options),
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
