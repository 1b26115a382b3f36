"""One attribution by circuit-tracer, timed. Runs in circuit-tracer's environment.

Writes `graph.safetensors` (the graph as circuit-tracer holds it) and `measurement.json`.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.graph import Graph
from safetensors.torch import save_file

from benchmarks.measure import measure, versions
from benchmarks.peers.circuit_tracer import load_replacement_model

PACKAGES = ("circuit-tracer", "transformer-lens", "torch", "transformers")


def graph_tensors(graph: Graph) -> dict[str, torch.Tensor]:
    """What identifies a graph: nodes in circuit-tracer's order, and every edge.

    `adjacency[target, source]` runs over the selected features, then errors (layer, position),
    tokens and logits.
    """
    return {
        "tokens": graph.input_tokens.int(),
        "active_features": graph.active_features.int().contiguous(),
        "activations": graph.activation_values,
        "selected_features": graph.selected_features.int(),
        "logit_tokens": graph.logit_token_ids.int(),
        "logit_probabilities": graph.logit_probabilities,
        "adjacency": graph.adjacency_matrix,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--transcoders", type=Path, required=True)
    parser.add_argument("--ids", required=True, help="comma-separated token ids")
    parser.add_argument("--max-features", type=int, help="cap on feature nodes (default: none)")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    model = load_replacement_model(options.model, options.transcoders)
    ids = [int(token) for token in options.ids.split(",")]
    graph, measurement = measure(
        lambda: attribute(
            ids,
            model,
            batch_size=options.batch_size,
            max_feature_nodes=options.max_features,
        ),
        repeats=options.repeats,
    )
    assert graph.input_tokens.tolist() == ids, "circuit-tracer changed the prompt"
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(graph_tensors(graph), options.out / "graph.safetensors")
    record = asdict(measurement) | {"versions": versions(PACKAGES)}
    (options.out / "measurement.json").write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
