"""Encoding a batch while training: dense pre-activations exist a block of tokens at a time."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import SparseCodes
from pellucid.distributed.team import Team, Teams
from pellucid.kernels.dispatch import relu_topk
from pellucid.training.activations.base import ActivationRule, Candidates, Chosen, Encoder
from pellucid.training.activations.batchtopk import BatchTopKRule
from pellucid.training.activations.topk import largest_of_all
from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters

# A block of pre-activations stays in the last cache level and below malloc's largest mmap threshold
# (32 MiB), past which every block would be fresh zeroed pages.
BLOCK_BYTES = 24 * 2**20
GPU_BLOCK_BYTES = 2**28  # every block is a queue of launches


def encode(
    config: TrainConfig,
    rule: ActivationRule,
    parameters: Parameters,
    inputs: Float[Tensor, "N d"],
    *,
    dead: Int[Tensor, " n_dead"],
    dead_k: int,
    teams: Teams,
    width: int = 0,
    W_enc: Tensor | None = None,
) -> tuple[Chosen, SparseCodes | None, int]:
    """What is active in a batch and, if `dead_k`, the most active dead features of each token.

    Also how many candidates of a token had to be looked for: to begin with that many next time
    saves encoding twice.

    Args:
        config: the settings.
        rule: the activation's.
        parameters: the encoder.
        inputs: what the encoder matrix multiplies.
        dead: the dead features of this process.
        dead_k: how many of all processes' dead features take part a token.
        teams: over which processes tokens and features are spread.
        width: how many candidates of a token to look for first, if more than the rule says.
        W_enc: a copy of the encoder in the dtype to multiply in, where that is another.
    """
    weight = parameters.W_enc if W_enc is None else W_enc
    encoder = Encoder(weight, parameters.b_enc.to(weight.dtype), parameters.threshold)
    most = BLOCK_BYTES if weight.device.type == "cpu" else GPU_BLOCK_BYTES
    block = max(1, most // (len(weight) * weight.element_size()))
    width, revived = max(width, rule.width(config)), None
    while True:
        living: list[Candidates] = []
        dying: list[Candidates] = []
        for part in inputs.split(block):
            found, pre = rule.candidates(config, part.to(weight.dtype), encoder, width)
            living.append(found)
            if dead_k and revived is None:
                dying.append(_most_active(pre, dead, dead_k))
        if dying:
            revived = join(dying, parameters.b_enc)
        chosen = rule.settle(config, join(living, parameters.b_enc), parameters.threshold, teams)
        if chosen is not None:
            break
        width *= 2
    return chosen, None if revived is None else largest_of_all(revived, dead_k, teams), width


def batch_cut(
    config: TrainConfig, parameters: Parameters, inputs: Float[Tensor, "N d"], teams: Teams
) -> float:
    """The pre-activation that k features a token exceed, on average over a batch."""
    nothing = torch.empty(0, dtype=torch.int64, device=inputs.device)
    chosen, _, _ = encode(
        config, BatchTopKRule(), parameters, inputs, dead=nothing, dead_k=0, teams=teams
    )
    return 0.0 if chosen.cut is None else chosen.cut


def _most_active(pre: Float[Tensor, "N F"], features: Int[Tensor, " n"], k: int) -> Candidates:
    """The k most active of some features of each token; where they are fewer, padded."""
    if not len(features):
        empty = pre.new_zeros(len(pre), k)
        return empty, torch.zeros_like(empty, dtype=torch.int64)
    values, columns = relu_topk(pre.index_select(1, features), min(k, len(features)))
    missing = (0, k - values.shape[1])
    return (
        torch.nn.functional.pad(values, missing),
        torch.nn.functional.pad(features[columns], missing),
    )


def join(parts: Sequence[Candidates], like: Float[Tensor, " F"]) -> SparseCodes:
    """The candidates of all blocks, padded to the widest, in the dtype of `like`."""
    width = max(values.shape[1] for values, _ in parts)
    values, indices = (
        torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in column])
        for column in zip(*parts, strict=True)
    )
    return SparseCodes(values.to(like.dtype), indices, len(like))


def by_prefix(config: TrainConfig, codes: SparseCodes, features: Team) -> list[SparseCodes]:
    """The same codes split by the part of the dictionary they are of (`TrainConfig.parts`).

    Args:
        config: the settings.
        codes: of this process's features.
        features: the processes that have the others.
    """
    if not config.prefixes:
        return [codes]
    total = codes.num_features * features.size
    numbers = codes.indices + features.share(total).start
    return [
        SparseCodes(
            codes.values.where((first <= numbers) & (numbers < end), 0),
            codes.indices,
            codes.num_features,
        )
        for first, end in config.parts(total)
    ]
