"""The compiled model as a case: its dictionaries, and true wires beside what methods found."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Case, Nodes
from benchmarks.ground_truth.boolean_circuit import ANSWER, Node, Prompt, Truth
from benchmarks.ground_truth.compiled import CompiledModel
from benchmarks.ground_truth.direct import direct_effects
from benchmarks.ground_truth.fit import FitSettings, Fitted, fit
from benchmarks.ground_truth.methods import IG_STEPS, activation_gradients
from pellucid.core.types import Site
from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import edge_influence
from pellucid.graphs.tables import FEATURE, LOGIT, TOKEN

TRAINING_PROMPTS, TRAINING_SEED = 4096, 1
SETTINGS = {
    name: FitSettings(
        features=48, cross_layer=cross_layer, sparsity=0.1, steps=1000, batch=512, rate=3e-3
    )
    for name, cross_layer in (("PLT", False), ("CLT", True))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BooleanCase:
    """One prompt of the compiled model with its true circuit."""

    prompt: Prompt
    truth: Truth
    case: Case

    @property
    def last(self) -> int:
        """The position where all gates are computed."""
        return len(self.case.ids) - 1

    def nodes(self) -> list[Node]:
        """Tokens of the prompt, the minterms that are on, and the answer."""
        tokens: list[Node] = [("token", position, 0) for position in range(1, self.last + 1)]
        return [*tokens, *sorted(self.truth.active), ANSWER]

    def pairs(self) -> list[tuple[Node, Node]]:
        """Every pair that could be a wire: tokens to minterms, and minterms to later ones."""
        return [(s, t) for s in self.nodes() for t in self.nodes() if _depth(s) < _depth(t)]


def draw_cases(compiled: CompiledModel, count: int, *, seed: int = 0) -> list[BooleanCase]:
    """Random prompts, as many of each query."""
    return [_case(compiled, prompt) for prompt in compiled.circuit.draw(count, seed=seed)]


def _case(compiled: CompiledModel, prompt: Prompt) -> BooleanCase:
    truth = compiled.circuit.truth(prompt)
    case = Case(
        model=compiled.model,
        ids=compiled.ids([prompt])[0],
        answer=compiled.answer_token(truth.answer),
    )
    return BooleanCase(prompt=prompt, truth=truth, case=case)


def training_ids(compiled: CompiledModel, *, seed: int) -> Int[Tensor, "N S"]:
    """Prompts to train dictionaries on."""
    return compiled.ids(compiled.circuit.draw(TRAINING_PROMPTS, seed=seed))


def mlp_rows(
    compiled: CompiledModel, ids: Int[Tensor, "N S"], *, position: int | None = -1
) -> tuple[Float[Tensor, "N L d"], Float[Tensor, "N L d"]]:
    """MLP inputs and outputs of every layer at one position of every prompt.

    `position` None takes each prompt at one earlier position, all of them in turn.
    """
    layers = range(compiled.model.n_layers)
    sites = [[Site(kind, layer) for layer in layers] for kind in ("mlp_in", "mlp_out")]
    values = compiled.model.activations(ids, [site for row in sites for site in row])
    count, earlier = len(ids), compiled.circuit.length - 2
    where = torch.arange(count) % earlier + 1 if position is None else torch.tensor([position])
    rows = torch.arange(count)
    x, y = (torch.stack([values[site][rows, where] for site in row], dim=1) for row in sites)
    return x, y


def train_dictionaries(
    compiled: CompiledModel, start: Basis | None = None, *, seed: int = TRAINING_SEED
) -> dict[str, Fitted]:
    """A transcoder a layer and a cross-layer transcoder, on the same data and settings.

    One row in ten is of another position, where MLPs write nothing.
    """
    ids = training_ids(compiled, seed=seed)
    few = ids[: TRAINING_PROMPTS // 10]
    parts = [mlp_rows(compiled, ids), mlp_rows(compiled, few, position=None)]
    x, y = (torch.cat(rows) for rows in zip(*parts, strict=True))
    return {name: fit(x, y, settings, start) for name, settings in SETTINGS.items()}


def assignment(compiled: CompiledModel, basis: Basis, neurons: Basis) -> list[Int[Tensor, "F 2"]]:
    """Which true minterm every feature stands for, as hop and number: the most correlated one.

    Any hop may be the best: a feature of an early layer that stands for a later hop's minterm is a
    shortcut. Correlations are over training prompts at the last position.
    """
    x, _ = mlp_rows(compiled, training_ids(compiled, seed=TRAINING_SEED))
    true_NLM = torch.stack(
        [encode(each) for encode, each in zip(neurons.encoders, x.unbind(1), strict=True)], dim=1
    )
    true = _standardised(true_NLM.flatten(1))
    width = true_NLM.shape[2]
    found = []
    for encode, each in zip(basis.encoders, x.unbind(1), strict=True):
        best = (_standardised(encode(each)).T @ true).argmax(dim=1)
        found.append(torch.stack([best // width, best % width], dim=1))
    return found


def _standardised(a: Tensor) -> Tensor:
    centred = a - a.mean(0)
    return centred / centred.norm(dim=0).clamp_min(1e-6)


EdgeScores = tuple[Float[Tensor, "n1 n"], Float[Tensor, "n1 S"]]
"""Scores of edges into every node and the answer, from every node and from every token."""


def graph_edges(graph: AttributionGraph, nodes: Nodes, length: int) -> EdgeScores:
    """Ours: the influence that flows through each edge."""
    table, edges = graph.nodes, graph.edges
    row = np.full(len(table), -1)
    columns = np.stack([table.layer, table.position, table.index], axis=1)
    number = {key: n for n, key in enumerate(nodes.places())}
    for node in np.flatnonzero(table.is_kind(FEATURE)):
        row[node] = number[tuple(columns[node].tolist())]
    row[table.is_kind(LOGIT)] = len(nodes)
    from_nodes = torch.zeros(len(nodes) + 1, len(nodes))
    from_tokens = torch.zeros(len(nodes) + 1, length)
    for target, source, flow in zip(
        row[edges.target], edges.source, edge_influence(graph), strict=True
    ):
        if table.kind[source] == FEATURE:
            from_nodes[target, row[source]] = flow
        elif table.kind[source] == TOKEN:
            from_tokens[target, table.position[source]] = flow
    return from_nodes, from_tokens


def patching_edges(case: Case, basis: Basis, nodes: Nodes, *, steps: int = 1) -> EdgeScores:
    """EAP (Syed et al. 2023): |direct effect on the target's input times dm/d that input|.

    With several steps EAP-IG (Hanna et al. 2024): the gradient is `methods.activation_gradients`
    over that many scales. An active ReLU passes the gradient on unchanged.
    """
    scales = [1.0] if steps == 1 else [(step + 0.5) / steps for step in range(steps)]
    gradients = activation_gradients(case, basis, nodes, scales=scales)
    weight = torch.cat([gradients, torch.ones(1)]).abs()[:, None]
    from_nodes, from_tokens, _ = direct_effects(case, basis, nodes, frozen=False)
    return from_nodes.abs() * weight, from_tokens.abs() * weight


def edge_methods(
    boolean: BooleanCase, basis: Basis, nodes: Nodes, graph: AttributionGraph, seed: int
) -> dict[str, EdgeScores]:
    """Edge scores of one prompt by every method."""
    length = len(boolean.case.ids)
    generator = torch.Generator().manual_seed(seed)
    return {
        "graph influence": graph_edges(graph, nodes, length),
        "EAP": patching_edges(boolean.case, basis, nodes),
        "EAP-IG": patching_edges(boolean.case, basis, nodes, steps=IG_STEPS),
        "random": (
            torch.rand(len(nodes) + 1, len(nodes), generator=generator),
            torch.rand(len(nodes) + 1, length, generator=generator),
        ),
    }


def judged_edges(
    boolean: BooleanCase, nodes: Nodes, stands_for: list[Int[Tensor, "F 2"]], scores: EdgeScores
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all pairs that could be wires, and which of them the answer rests on.

    A pair's score is the sum over the features that stand for its ends.
    """
    members = _members(nodes, stands_for, boolean.last)
    from_nodes, from_tokens = scores
    found, used = [], []
    for source, target in boolean.pairs():
        rows = [len(nodes)] if target == ANSWER else members.get(target, [])
        if source[0] == "token":
            value = from_tokens[rows, source[1]].sum()
        else:
            value = from_nodes[rows][:, members.get(source, [])].sum()
        found.append(float(value))
        used.append((source, target) in boolean.truth.used)
    return np.array(found), np.array(used)


def judged_nodes(
    boolean: BooleanCase, nodes: Nodes, stands_for: list[Int[Tensor, "F 2"]], scores: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the minterms that are on, and which of them the answer rests on."""
    members = _members(nodes, stands_for, boolean.last)
    active = sorted(boolean.truth.active)
    found = [float(scores[members.get(node, [])].sum()) for node in active]
    used = boolean.truth.used_nodes
    return np.array(found), np.array([node in used for node in active])


def _members(
    nodes: Nodes, stands_for: list[Int[Tensor, "F 2"]], position: int
) -> dict[Node, list[int]]:
    """Minterm -> the nodes at the last position that stand for it."""
    members: dict[Node, list[int]] = {}
    for number, (layer, where, index) in enumerate(nodes.places()):
        if where == position:
            hop, minterm = stands_for[layer][index].tolist()
            members.setdefault(("minterm", hop, minterm), []).append(number)
    return members


def _depth(node: Node) -> int:
    return {"token": -1, "minterm": node[1], "answer": 1 << 30}[node[0]]
