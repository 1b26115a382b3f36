"""How faithful a circuit of k nodes is: run the model on those nodes alone and compare.

The definition is MIB's (Mueller et al. 2025) on nodes instead of edges:

    f(k) = (m(circuit of k nodes) - m(no node)) / (m(model) - m(no node))
    CPR  = area under f,   CMD = area under |1 - f|

over budgets k. A circuit's run has its k features, answering to the inputs they find, and in place
of everything else that MLPs write nothing: other features are zero, and so are the errors. Zero is
what a graph calls a feature that is not there; errors are left out because they explain nothing,
and because with them every basis but the neurons would get what it failed to learn for free. So f
of all nodes is not 1 unless the basis is complete. Budgets are powers of two, the same for every
method and basis, and areas are over log2 k and divided by its range.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Case, Nodes, masked_taps

VALUES_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The metric of the real model and of the model without any node, one a prompt."""

    full: np.ndarray
    empty: np.ndarray


@torch.no_grad()
def real_metric(case: Case) -> float:
    """The metric of the real model."""
    return float(case.metric(case.model.logits(case.ids[None])))


@torch.no_grad()
def circuit_metrics(
    case: Case, basis: Basis, nodes: Nodes, scores: Float[Tensor, " n"], budgets: list[int]
) -> np.ndarray:
    """The metric of the circuits of the `budgets` best nodes; a budget of 0 is the empty circuit.

    Ties go to the node that comes first.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    widest = max(decoder.shape[0] for decoder in basis.decoders.values())
    rows = max(1, VALUES_AT_ONCE // (len(case.ids) * widest * basis.n_layers))
    found = []
    for start in range(0, len(budgets), rows):
        chosen = [order[:budget] for budget in budgets[start : start + rows]]
        masks = node_masks(case, basis, nodes, chosen)
        with case.model.tapped(masked_taps(case, basis, masks)):
            logits = case.model.logits(case.ids.expand(len(chosen), -1))
        found.append(case.metric(logits))
    return torch.cat(found).double().numpy()


def node_masks(case: Case, basis: Basis, nodes: Nodes, chosen: list[Tensor]) -> list[Tensor]:
    """By layer [B, S, F], one where a row's chosen nodes are."""
    masks = []
    for layer in range(basis.n_layers):
        width = basis.decoders[layer, layer].shape[0]
        mask = torch.zeros(len(chosen), len(case.ids), width)
        for row, picked in enumerate(chosen):
            own = picked[nodes.layers[picked] == layer]
            mask[row, nodes.positions[own], nodes.indices[own]] = 1.0
        masks.append(mask)
    return masks


def faithfulness(metrics_PK: np.ndarray, ends: Ends) -> np.ndarray:
    """f(k) over P prompts: a ratio of sums, so that no prompt with a small range dominates."""
    span = (ends.full - ends.empty).sum()
    return (metrics_PK - ends.empty[:, None]).sum(axis=0) / span


def areas(faithfulness_K: np.ndarray, budgets: list[int]) -> tuple[float, float]:
    """CPR and CMD: trapezoids over log2 of the budget, divided by its range."""
    x = np.log2(budgets)
    width = x[-1] - x[0]
    cpr = np.trapezoid(faithfulness_K, x) / width
    cmd = np.trapezoid(np.abs(1 - faithfulness_K), x) / width
    return float(cpr), float(cmd)
