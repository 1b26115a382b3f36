"""Family `path`: through how many nodes the prediction comes, by powers of the edges' shares.

With A the matrix of shares (a target's row sums to 1) and w the logits' weights, w A^k is the
influence that arrives after k edges. What arrives at a node without inputs ends there.
"""

import numpy as np

from pellucid.graphs.tables import ERROR, FEATURE, TOKEN
from pellucid.verification.fingerprints.definition import Definition, Family
from pellucid.verification.fingerprints.measured import MeasuredGraph, ratio

_ENDS = "share of the inputs' influence that ends"

DEFINITIONS = (
    Definition("path.mass_{length}", "influence that has come so many edges, 1 at the logits"),
    Definition("path.token_{length}", f"{_ENDS} in tokens after so many edges"),
    Definition("path.error_{length}", f"{_ENDS} in errors after so many edges"),
    Definition("path.mean", "mean edges of the paths from inputs, weighted by influence", "0.."),
    Definition("path.mean_token", "the same of those from tokens; 0 without any", "0.."),
    Definition("path.mean_error", "the same of those from errors; 0 without any", "0.."),
    Definition("path.indirect", "share of the inputs' influence that passes a feature"),
    Definition("path.row_feature_{layer}", "share of the logits' rows from a layer's features"),
    Definition("path.row_error_{layer}", "share of the logits' rows from a layer's errors"),
    Definition("path.row_token", "share of the logits' rows that comes straight from tokens"),
    Definition(
        "path.row_last",
        "share of the logits' rows that comes from the graph's last position; the rest is read by "
        "attention",
    ),
    Definition(
        "path.moved",
        "share of influence that passes an edge from one position to another (attention)",
    ),
    Definition(
        "path.concentration",
        "sum of squared shares of a row, mean over targets by influence: 1 where each has one "
        "source",
    ),
)


def _measure(measured: MeasuredGraph) -> dict[str, float]:
    transposed, flow = measured.matrix.T, measured.probability
    is_token, is_error = measured.kind == TOKEN, measured.kind == ERROR
    whole = measured.influence[is_token].sum() + measured.influence[is_error].sum()
    found, tokens, errors = {}, [], []
    for length in range(1, measured.n_layers + 2):
        flow = transposed @ flow
        tokens.append(flow[is_token].sum())
        errors.append(flow[is_error].sum())
        found[f"path.mass_{length}"] = float(flow.sum())
        found[f"path.token_{length}"] = ratio(tokens[-1], whole)
        found[f"path.error_{length}"] = ratio(errors[-1], whole)
        if length == 1:
            found |= _rows(measured, flow)
    lengths = np.arange(1, len(tokens) + 1)
    by_token, by_error = np.array(tokens), np.array(errors)
    return found | {
        "path.mean": ratio(lengths @ (by_token + by_error), whole),
        "path.mean_token": ratio(lengths @ by_token, by_token.sum()),
        "path.mean_error": ratio(lengths @ by_error, by_error.sum()),
        "path.indirect": ratio(by_token[1:].sum() + by_error[1:].sum(), whole),
        **_edges(measured),
    }


def _rows(measured: MeasuredGraph, flow: np.ndarray) -> dict[str, float]:
    """Where the logits' own inputs come from."""
    nodes, total = measured.nodes, flow.sum()
    found = {
        "path.row_token": ratio(flow[nodes.kind == TOKEN].sum(), total),
        "path.row_last": ratio(flow[nodes.position == measured.n_tokens - 1].sum(), total),
    }
    for kind, name in ((FEATURE, "feature"), (ERROR, "error")):
        rows = nodes.kind == kind
        by_layer = np.bincount(nodes.layer[rows], flow[rows], measured.n_layers)
        for layer in range(measured.n_layers):
            found[f"path.row_{name}_{layer}"] = ratio(by_layer[layer], total)
    return found


def _edges(measured: MeasuredGraph) -> dict[str, float]:
    """What the edges do to the influence that reaches their targets."""
    edges, position = measured.edges, measured.nodes.position
    through = measured.through
    moved = position[edges.source] != position[edges.target]
    total = through.sum()
    return {
        "path.moved": ratio(through[moved].sum(), total),
        "path.concentration": ratio(through @ measured.shares, total),
    }


PATH = Family(about="how long the paths are", definitions=DEFINITIONS, measure=_measure)
