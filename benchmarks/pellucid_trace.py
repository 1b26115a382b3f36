"""One trace by pellucid, timed.

Writes `graph.safetensors`, `active.safetensors` (every active feature) and `measurement.json`.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.measure import measure, versions
from benchmarks.models import BenchmarkSize
from benchmarks.work import necessary, work_of
from pellucid.attribution.trace import trace
from pellucid.dictionaries.checkpoint import load_dictionaries
from pellucid.models.load import load_model
from pellucid.replacement.local import LocalReplacement
from pellucid.replacement.model import ReplacementModel

PACKAGES = ("pellucid", "torch", "transformers")
UNCAPPED = 1 << 30


def active_features(local: LocalReplacement) -> Tensor:
    """(layer, position, index) of every active feature."""
    parts = [layer.active for layer in local.layers]
    layers = torch.repeat_interleave(
        torch.arange(len(parts)), torch.tensor([len(part) for part in parts])
    )
    positions = torch.cat([part.positions for part in parts])
    return torch.stack([layers, positions, torch.cat([part.features for part in parts])], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--transcoders", type=Path, required=True)
    parser.add_argument("--ids", required=True, help="comma-separated token ids")
    parser.add_argument("--max-features", type=int, default=UNCAPPED)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--work", action="store_true", help="count the arithmetic, in another run")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    dictionaries = load_dictionaries(options.transcoders)
    ids = [int(token) for token in options.ids.split(",")]

    def run():
        return trace(model, ids, dictionaries, max_features=options.max_features, causal=False)

    graph, measurement = measure(run, repeats=options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    graph.save(options.out / "graph.safetensors")
    local = ReplacementModel(model, dictionaries).local(torch.tensor(ids))
    active = active_features(local)
    save_file({"active": active.int()}, options.out / "active.safetensors")
    record = asdict(measurement) | {
        "features": int(graph.metadata["selected_features"]),
        "active": len(active),
        "edges": len(graph.edges.weight),
        "row_sum_max_error": graph.row_sum_max_error,
        "versions": versions(PACKAGES),
    }
    if options.work:
        size = BenchmarkSize(layers=model.n_layers, d_model=model.d_model)
        record["work"] = asdict(work_of(run, necessary(graph, local, size)))
    (options.out / "measurement.json").write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
