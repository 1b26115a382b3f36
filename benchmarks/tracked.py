"""What do gradients through a TopK transcoder cost, beside the definition's? On one thread:

    python -m benchmarks.tracked

Forward and backward of one dictionary (d 768, 24,576 features, k 32, 2,048 tokens), gradients for
every weight and for the input. Results are written to `results/tracked.json`.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.measure import Measurement, hardware, measure, versions
from pellucid.core.files import write_text
from pellucid.core.types import Site
from pellucid.dictionaries import TopK, Transcoder
from pellucid.kernels import reference

RESULTS = Path(__file__).parent / "results" / "tracked.json"
TOKENS, WIDTH, FEATURES, K = 2048, 768, 24_576, 32
REPEATS = 3
Tensors = tuple[torch.Tensor, ...]


def by_definition(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, W_dec: torch.Tensor):
    """Dense encoder, [N, K, D] decoder."""
    values, indices = reference.relu_topk(torch.nn.functional.linear(x, W_enc, b_enc), K)
    return reference.decode(values, indices, W_dec)


def sparse(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, W_dec: torch.Tensor):
    """A dictionary as it is; the tensors take the places of its parameters."""
    dictionary = Transcoder(
        W_enc=W_enc.detach(),
        b_enc=b_enc.detach(),
        W_dec=W_dec.detach(),
        b_dec=torch.zeros(WIDTH),
        activation=TopK(K),
        read_site=Site("mlp_in", 0),
        write_site=Site("mlp_out", 0),
    )
    places = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec}
    return torch.func.functional_call(dictionary, places, (x,))


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    generator = torch.Generator().manual_seed(0)
    shapes = [(TOKENS, WIDTH), (FEATURES, WIDTH), (FEATURES,), (FEATURES, WIDTH)]
    tensors = [torch.randn(*s, generator=generator).requires_grad_() for s in shapes]
    upstream = torch.randn(TOKENS, WIDTH, generator=generator)

    def gradients(function) -> Tensors:
        return torch.autograd.grad(function(*tensors), tensors, upstream)

    with torch.no_grad():
        _, product = measure(lambda: torch.nn.functional.linear(*tensors[:3]), repeats=REPEATS)
    found: dict[str, Measurement] = {"encoder product": product}
    results: dict[str, Tensors] = {}
    for name, function in (("sparse", sparse), ("definition", by_definition)):
        results[name], found[name] = measure(lambda f=function: gradients(f), repeats=REPEATS)
    difference = max(
        float((a - b).abs().max() / b.abs().max())
        for a, b in zip(results["sparse"], results["definition"], strict=True)
    )
    for name, each in found.items():
        print(f"{name:16} {each.cpu_s:6.2f} s  {each.peak_mb - each.start_mb:7.0f} MB")
    print(f"largest relative difference {difference:.1e}")
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(["torch"]),
        "size": {"tokens": TOKENS, "width": WIDTH, "features": FEATURES, "k": K},
        "difference": difference,
        "measured": {name: asdict(each) for name, each in found.items()},
    }
    write_text(RESULTS, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
