"""What do kinds and activations of dictionaries reach on the specimen in the same short training?

    python -m benchmarks.kinds

One thread, held-out text, a rate of 3e-3 but where a row says another. Rows that share a question
stand together: activations at equal k and the penalties whose defaults rest on this, kinds, rates.
"""

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.measure import hardware
from pellucid import api
from pellucid.core.manifest import software_versions
from pellucid.training import train

RESULTS = Path(__file__).parent / "results" / "kinds.json"
ONE, ALL = [1], [0, 1, 2, 3]
ROWS: list[tuple[str, list[int], dict[str, Any]]] = [
    ("topk", ONE, {}),
    ("batchtopk", ONE, {"activation": "batchtopk"}),
    ("jumprelu", ONE, {"activation": "jumprelu"}),
    ("jumprelu, bandwidth .1", ONE, {"activation": "jumprelu", "bandwidth": 0.1}),
    ("jumprelu, sparsity .01", ONE, {"activation": "jumprelu", "sparsity": 0.01}),
    ("relu, sparsity .01", ONE, {"activation": "relu", "sparsity": 0.01}),
    ("relu", ONE, {"activation": "relu"}),
    ("relu, sparsity .3", ONE, {"activation": "relu", "sparsity": 0.3}),
    ("topk, prefixes 256, 1024", ONE, {"prefixes": (256, 1024)}),
    ("topk, unit decoder rows", ONE, {"decoder_norm": "unit"}),
    ("topk, running mean .95", ONE, {"average": 0.95}),
    ("transcoders", ALL, {}),
    ("skip transcoders", ALL, {"kind": "skip-transcoder"}),
    ("SAEs", ALL, {"kind": "sae"}),
    ("cross-layer transcoder", ALL, {"kind": "clt"}),
    ("cross-layer, rate 1.2e-3", ALL, {"kind": "clt", "learning_rate": 1.155e-3}),
    ("cross-layer, rate 4e-4", ALL, {"kind": "clt", "learning_rate": 4e-4}),
]
SHARED: dict[str, Any] = {"num_features": 3072, "k": 12, "batch_tokens": 2048}
SHARED |= {"learning_rate": 3e-3, "precision": "float32"}


def trained(layers: list[int], settings: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Train, and what held-out text shows."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            api.load_model("specimen"),
            "specimen",
            Path(folder) / "run",
            layers=layers,
            tokens=tokens,
            held_out_tokens=20_000,
            **(SHARED | settings),
        )
    return {
        "fvu": [layer.fvu for layer in result.layers],
        "l0": fmean(layer.l0 for layer in result.layers),
        "dead": fmean(layer.dead for layer in result.layers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = {}
    for name, layers, settings in ROWS:
        rows[name] = trained(layers, settings, options.tokens)
        figures = ", ".join(f"{fvu:.4f}" for fvu in rows[name]["fvu"])
        print(f"{name:40s} FVU {figures}; L0 {rows[name]['l0']:.1f}, dead {rows[name]['dead']:.1%}")
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": software_versions(),
        "tokens": options.tokens,
        "rows": rows,
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
