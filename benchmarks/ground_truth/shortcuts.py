"""Whether a dictionary computes hop by hop as the model does, or takes shortcuts.

A cross-layer transcoder may compute a later hop's value from an earlier layer's input and write it
where it is due: outputs agree, the mechanism does not (Lange et al. 2026). Three figures say so:
how long the paths of its graphs are, what share of MLP outputs comes from earlier layers, and
whether it answers when a gate in the middle is flipped.
"""

import numpy as np
import torch
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, masked_taps
from benchmarks.ground_truth.boolean_case import BooleanCase
from benchmarks.ground_truth.boolean_circuit import MINTERMS, Node
from benchmarks.ground_truth.compiled import CompiledModel
from pellucid.core.types import Site
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import edge_shares, logit_weights, sweep
from pellucid.graphs.tables import ERROR, FEATURE
from pellucid.models.taps import TapCall


def path_depth(graph: AttributionGraph) -> float:
    """Mean number of features on a path from the answer back to a token, errors left out.

    A walk that leaves every node by its edges' shares passes a feature as often as the feature has
    influence, so the mean is the influence of all features over the logits' probability.
    """
    keep = graph.nodes.kind[graph.edges.source] != ERROR
    reached = sweep(graph, edge_shares(graph, keep=keep))
    return float(reached[graph.nodes.is_kind(FEATURE)].sum() / logit_weights(graph).sum())


def cross_layer_share(basis: Basis, x_NLd: Tensor) -> float:
    """Share of what features write after the first layer that comes from an earlier layer.

    By mean square over tokens of each layer's total contribution to each later output.
    """
    activations = [encode(x) for encode, x in zip(basis.encoders, x_NLd.unbind(1), strict=True)]
    sizes = {
        (source, target): float((activations[source] @ decoder).square().sum())
        for (source, target), decoder in basis.decoders.items()
        if target > 0
    }
    crossing = sum(size for (source, target), size in sizes.items() if source < target)
    return crossing / sum(sizes.values())


@torch.no_grad()
def flip_effects(
    compiled: CompiledModel, boolean: BooleanCase, basis: Basis | None
) -> dict[Node, float]:
    """Change of the metric when the value of one used gate is flipped where its layer writes it.

    Args:
        compiled: the model.
        boolean: the prompt.
        basis: whose features compute all MLPs, without error; None for the real model.
    """
    case = boolean.case
    last_hop = compiled.circuit.n_hops - 1
    gates = sorted(node for node in boolean.truth.used_nodes if node[1] < last_hop)
    chain = compiled.circuit.chains[boolean.prompt.query]
    offsets = torch.zeros(compiled.model.n_layers, len(gates) + 1, compiled.model.d_model)
    for row, node in enumerate(gates):
        hop = node[1]
        value = int(chain.tables[hop][node[2] % MINTERMS])
        rails = compiled.rails[hop][boolean.prompt.query]
        offsets[hop, row] = rails[1 - value] - rails[value]

    def flip(layer: int) -> tuple[Site, object]:
        def add(value: Tensor, _call: TapCall) -> Tensor:
            changed = value.expand(len(gates) + 1, -1, -1).clone()
            changed[:, -1] += offsets[layer]
            return changed

        return Site("mlp_out", layer), add

    taps = []
    if basis is not None:
        everything = [torch.ones(())] * basis.n_layers
        taps += masked_taps(case, basis, everything)
    taps += [flip(layer) for layer in range(compiled.model.n_layers)]
    with case.model.tapped(taps):
        metric = case.metric(case.model.logits(case.ids.expand(len(gates) + 1, -1)))
    effects = (metric[:-1] - metric[-1]).tolist()
    return dict(zip(gates, effects, strict=True))


def response(real: list[dict[Node, float]], replaced: list[dict[Node, float]]) -> float:
    """1 - sum (replaced - real)^2 / sum real^2 over all flips.

    1 where the replacement answers as the model does, 0 where it is as wrong as one that does not
    answer at all.
    """
    x = np.concatenate([list(each.values()) for each in real])
    y = np.concatenate([list(each.values()) for each in replaced])
    return 1 - float(((y - x) ** 2).sum() / (x**2).sum())
