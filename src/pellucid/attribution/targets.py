"""What a graph explains: rows to compute, each a vector read somewhere in the residual stream."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.linearise import LinearModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """R rows to attribute.

    Attributes:
        layer: the block whose `mlp_in` is read; the number of blocks for a logit.
        position: where it is read.
        vectors: the read direction, pulled back to the residual stream.
        constant: the part of the target's value that no source writes (encoder and norm bias).
        value: the target's pre-activation, which its row must sum to.
    """

    layer: Int[Tensor, " R"]
    position: Int[Tensor, " R"]
    vectors: Float[Tensor, "R d"]
    constant: Float[Tensor, " R"]
    value: Float[Tensor, " R"]

    def __len__(self) -> int:
        return len(self.layer)

    def select(self, rows: Int[Tensor, " n"]) -> "Targets":
        """The chosen rows, in the order given."""
        return Targets(
            layer=self.layer[rows],
            position=self.position[rows],
            vectors=self.vectors[rows],
            constant=self.constant[rows],
            value=self.value[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitTargets:
    """The logits a graph explains, most probable first."""

    tokens: Int[Tensor, " n"]
    probabilities: Float[Tensor, " n"]
    targets: Targets


def concatenate(parts: list[Targets]) -> Targets:
    """All rows of all parts, in order."""
    names = ("layer", "position", "vectors", "constant", "value")
    return Targets(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def feature_targets(linear: LinearModel, layer: int, chosen: Int[Tensor, " R"]) -> Targets:
    """Pre-activations of active features of one layer.

    Args:
        linear: the affine map.
        layer: the block.
        chosen: which of the layer's active features, as indices into its `LocalLayer`.
    """
    local = linear.local.layers[layer]
    dictionary = linear.local.dictionaries[layer]
    features, positions = local.features[chosen], local.positions[chosen]
    encoder = dictionary.encoder_rows(features).to(local.error.dtype)
    read = linear.blocks[layer].read
    return Targets(
        layer=torch.full_like(positions, layer),
        position=positions,
        vectors=read.pull(encoder, positions),
        constant=read.constant(encoder) + dictionary.b_enc[features].to(encoder.dtype),
        value=local.activations[chosen],
    )


def logit_targets(
    linear: LinearModel, *, max_logits: int = 10, probability_mass: float = 0.95
) -> LogitTargets:
    """The most probable next tokens, each as its logit minus the mean logit.

    Tokens are taken in order of probability until they hold `probability_mass`, at most
    `max_logits` of them. A final softcap is not part of the target.
    """
    run = linear.local.run
    sorted_p, order = run.probabilities.sort(descending=True)
    before = sorted_p.cumsum(0) - sorted_p
    count = min(max_logits, int((before < probability_mass).sum()))
    tokens = order[:count]
    unembedding = run.model.unembedding()
    directions = unembedding[tokens] - unembedding.mean(dim=0)
    constant = linear.final_read.constant(directions)
    bias = run.model.unembedding_bias()
    if bias is not None:
        constant = constant + bias[tokens] - bias.mean()
    last = torch.full_like(tokens, len(run.ids) - 1)
    logits = run.logits[-1]
    targets = Targets(
        layer=torch.full_like(tokens, len(linear.blocks)),
        position=last,
        vectors=linear.final_read.pull(directions, last),
        constant=constant,
        value=logits[tokens] - logits.mean(),
    )
    return LogitTargets(tokens=tokens, probabilities=sorted_p[:count], targets=targets)
