"""Direct effects between features by autograd on the real modules: slow, plain, and for any basis.

Every MLP's output is cut off from its input and made a leaf. What is left between leaves and
targets is residual stream, attention and norms. `frozen` holds attention patterns and norm scales,
as an attribution graph does; otherwise their derivatives are taken too, as attribution patching
does.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.ground_truth.basis import Basis, Case, Nodes, contributions, mlp_values
from pellucid.core.types import Site
from pellucid.models.taps import TapCall
from pellucid.replacement.freeze import Taps, attention_taps, freeze, norm_taps


def leaf_gradients(
    case: Case, basis: Basis, nodes: Nodes, *, frozen: bool
) -> tuple[Float[Tensor, "n1 S d"], list[Float[Tensor, "n1 S d"]]]:
    """Gradient of every node's pre-activation, and of the metric, at the embedding and each MLP.

    Returns:
        At the embedding, and at each layer's MLP output; targets are the nodes, then the metric.

    Raises:
        ValueError: the basis has features that read more than one direction.
    """
    if basis.rows is None:
        raise ValueError(f"features of {basis.name!r} have no single direction that they read")
    leaves: dict[Site, Tensor] = {}
    reads: dict[int, Tensor] = {}
    taps: Taps = []
    if frozen:
        run = freeze(case.model, case.ids)
        taps += attention_taps(run) + norm_taps(run)

    def cut(site: Site) -> None:
        def tap(value: Tensor, _call: TapCall) -> Tensor:
            leaves[site] = value.detach().clone().requires_grad_()
            return leaves[site]

        taps.append((site, tap))

    def keep(layer: int) -> None:
        def tap(value: Tensor, _call: TapCall) -> None:
            reads[layer] = value[0]

        taps.append((Site("mlp_in", layer), tap))

    cut(Site("embed"))
    for layer in range(basis.n_layers):
        keep(layer)
        cut(Site("mlp_out", layer))
    with torch.enable_grad(), case.model.tapped(taps):
        metric = case.metric(case.model.logits(case.ids[None]))
        targets = [
            (reads[layer][nodes.positions[own]] * basis.rows[layer][nodes.indices[own]]).sum(-1)
            for layer in range(basis.n_layers)
            for own in [nodes.layers == layer]
        ]
        stacked = torch.cat([*targets, metric])
        gradients = torch.autograd.grad(
            stacked,
            list(leaves.values()),
            torch.eye(len(stacked)),
            is_grads_batched=True,
            allow_unused=True,
            materialize_grads=True,
        )
    by_site = {site: grad[:, 0] for site, grad in zip(leaves, gradients, strict=True)}
    return by_site[Site("embed")], [by_site[Site("mlp_out", n)] for n in range(basis.n_layers)]


def direct_effects(
    case: Case, basis: Basis, nodes: Nodes, *, frozen: bool
) -> tuple[Float[Tensor, "n1 n"], Float[Tensor, "n1 S"], Float[Tensor, "n1 L S"]]:
    """Effects on every node's pre-activation and on the metric, of nodes, tokens and errors."""
    at_embedding, at_mlps = leaf_gradients(case, basis, nodes, frozen=frozen)
    from_nodes = at_embedding.new_zeros(len(nodes) + 1, len(nodes))
    for (source, target), decoder in basis.decoders.items():
        own = nodes.layers == source
        written = decoder[nodes.indices[own]] * nodes.activations[own, None]
        from_nodes[:, own] += (at_mlps[target][:, nodes.positions[own]] * written).sum(-1)
    tokens = case.model.token_embedding(case.ids)
    from_tokens = (at_embedding * tokens).sum(-1)
    errors = errors_of(case, basis, nodes)
    from_errors = torch.stack([(g * e).sum(-1) for g, e in zip(at_mlps, errors, strict=True)], 1)
    return from_nodes, from_tokens, from_errors


def errors_of(case: Case, basis: Basis, nodes: Nodes) -> list[Float[Tensor, "S d"]]:
    """What the basis misses of each MLP's output; zero at anchored positions."""
    _, outputs = mlp_values(case)
    parts = contributions(basis, nodes, len(case.ids))
    anchored = case.anchored()[:, None]
    errors = []
    for layer, output in enumerate(outputs):
        written = sum(part for (_, target), part in parts.items() if target == layer)
        error = output - written - basis.constants[layer]
        errors.append(error.masked_fill(anchored, 0.0))
    return errors
