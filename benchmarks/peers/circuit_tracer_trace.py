"""One attribution by circuit-tracer, timed. Runs in circuit-tracer's environment.

Writes `graph.safetensors` (the graph as circuit-tracer holds it) and `measurement.json`. With
`--limit` the kernel ends the process by SIGXCPU once the attributions have taken that many
processor seconds. `--jobs FILE` instead runs several: their command lines, one a line.
"""

import argparse
import json
import resource
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.graph import Graph, compute_graph_scores, compute_node_influence, prune_graph
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


def judgement(graph: Graph, *, without_first_token: bool) -> dict[str, torch.Tensor]:
    """circuit-tracer's scores and pruning of a graph, at its default thresholds.

    Args:
        graph: the graph.
        without_first_token: leave the first token's effects out, which the two tracers define
            differently when transcoders have a skip connection.
    """
    if without_first_token:
        graph.adjacency_matrix = graph.adjacency_matrix.clone()
        first = len(graph.selected_features) + graph.cfg.n_layers * len(graph.input_tokens)
        graph.adjacency_matrix[:, first] = 0
    weights = torch.zeros(len(graph.adjacency_matrix))
    weights[-len(graph.logit_targets) :] = graph.logit_probabilities
    pruned = prune_graph(graph, node_threshold=0.8, edge_threshold=0.98)
    return {
        "scores": torch.tensor(compute_graph_scores(graph), dtype=torch.float64),
        "influence": compute_node_influence(graph.adjacency_matrix, weights),
        "node_mask": pruned.node_mask,
        "edge_mask": pruned.edge_mask,
    }


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or one line of a file of jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--transcoders", type=Path, required=True)
    parser.add_argument("--ids", required=True, help="comma-separated token ids")
    parser.add_argument("--max-features", type=int, help="cap on feature nodes (default: none)")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--limit", type=int, help="processor seconds before it is ended")
    parser.add_argument("--judge", action="store_true", help="write scores and pruning as well")
    parser.add_argument("--without-first-token", action="store_true", help="when judging")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """One job."""
    torch.set_num_threads(options.threads)
    model = load_replacement_model(options.model, options.transcoders)
    ids = [int(token) for token in options.ids.split(",")]
    if options.limit is not None:
        stop = int(time.process_time()) + options.limit
        resource.setrlimit(resource.RLIMIT_CPU, (stop, stop + 5))
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
    tensors = graph_tensors(graph)
    if options.judge:
        tensors |= judgement(graph, without_first_token=options.without_first_token)
    save_file(tensors, options.out / "graph.safetensors")
    record = asdict(measurement) | {"versions": versions(PACKAGES)}
    (options.out / "measurement.json").write_text(json.dumps(record, indent=2))


def main() -> None:
    if sys.argv[1:2] == ["--jobs"]:
        jobs = [shlex.split(line) for line in Path(sys.argv[2]).read_text().splitlines()]
        for job in jobs:
            run(parse_options(job))
    else:
        run(parse_options())


if __name__ == "__main__":
    main()
