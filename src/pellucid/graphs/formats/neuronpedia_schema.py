"""What writer and reader of the circuit-tracer and Neuronpedia JSON agree on.

`{metadata, qParams, nodes, links}`; the field list is Neuronpedia's `graph-schema.json` plus what
circuit-tracer's page uses. Neither forbids further keys, so what their format cannot hold (bias
nodes, target values, scores, the causal check) stands beside it under `pellucid`.
"""

from typing import Any

from pellucid.graphs.tables import ERROR, FEATURE, LOGIT, TOKEN

FEATURE_TYPES = {
    FEATURE: "cross layer transcoder",  # the format's word for per-layer transcoders too
    ERROR: "mlp reconstruction error",
    TOKEN: "embedding",
    LOGIT: "logit",
}
KIND_OF_TYPE = {name: kind for kind, name in FEATURE_TYPES.items()}
REQUIRED = {
    "metadata": ("slug", "scan", "prompt_tokens", "prompt"),
    "nodes": ("node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"),
    "links": ("source", "target", "weight"),
}
EXTRA = "pellucid"
EXTRA_VERSION = 1
KEPT_FIELDS = ("scores", "causal", "row_sum_max_error")
"""Fields of a graph that are stored as they are."""
RECORD = "neuronpedia"
"""Where a graph that was read from this format keeps what only the format needs."""


def short(value: Any) -> float:
    """A float32 with the nine digits that suffice to restore it exactly."""
    return float(f"{value:.9g}")


def logit_text(label: str, probability: float) -> str:
    """How the format labels a logit; readers take the probability from this text."""
    return f'Output "{label}" (p={probability:.3f})'
