"""One training step of sparse dictionaries without dense gradients.

Encoder product and choice of active features by blocks of tokens, sparse decoding, and gradients
straight from the active (token, feature) pairs: 2 d F + 8 k d operations a token, where dense
autograd pays 10 d F. Gradients and optimiser go over the weights together, a block of rows at a
time, so that a row is fetched from memory once a step and no gradient of a whole matrix exists.

Every kind and activation takes this path. A cross-layer transcoder is several dictionaries stepped
together: the outputs stand side by side as columns of one target, and the dictionary of each layer
writes to the columns from its own layer on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import SparseCodes
from pellucid.distributed.team import ALONE, Teams
from pellucid.kernels.dispatch import decode
from pellucid.training import losses
from pellucid.training.activations import RULES
from pellucid.training.activations.base import Chosen
from pellucid.training.config import TrainConfig
from pellucid.training.encoding import by_prefix, encode
from pellucid.training.state import TrainState
from pellucid.training.update import Batch, Revival, update


class StepMetrics(NamedTuple):
    """What one step saw of one dictionary and its first output, before the update.

    FVU over several steps is the sum of `squared_error` over the sum of `variance`.
    """

    squared_error: float
    variance: float
    l0: float
    dead: float
    auxiliary: float

    @property
    def fvu(self) -> float:
        """Fraction of the batch's variance left unexplained."""
        return self.squared_error / self.variance


class _Encoded(NamedTuple):
    """One dictionary's part in a step."""

    state: TrainState
    x: Float[Tensor, "N d_in"]
    inputs: Float[Tensor, "N d_in"]
    columns: slice
    chosen: Chosen
    dead_codes: SparseCodes | None
    n_dead: int


@torch.no_grad()
def train_step(
    config: TrainConfig,
    states: Sequence[TrainState],
    xs: Sequence[Float[Tensor, "N d_in"]],
    ys: Sequence[Float[Tensor, "N d_out"]],
    *,
    rate: float,
    dead_after: int,
    teams: Teams = ALONE,
) -> list[StepMetrics]:
    """Update dictionaries in place by one step on a batch of activations at unit scale.

    Activations and parameters share one dtype (float32; tests use float64).

    Args:
        config: kind, activation, k, auxiliary loss, Adam and precision.
        states: what to update: one dictionary, or those of all layers of a cross-layer transcoder.
        xs: what each dictionary reads.
        ys: what each should write to its first slot.
        rate: the learning rate.
        dead_after: tokens without firing after which a feature counts as dead.
        teams: over which processes tokens and features are spread.

    Raises:
        DictionaryError: the loss is not finite; the states are as they were.
    """
    width = ys[0].shape[1]
    y = torch.cat(list(ys), dim=1) if len(ys) > 1 else ys[0]
    variances = [losses.batch_variance(part, teams.tokens) for part in ys]
    variance = torch.stack(variances).repeat_interleave(width)
    aux_k = config.aux_k or max(1, width // 2)
    encoded = [
        _encode(config, state, x, i * width, aux_k, dead_after, teams)
        for i, (state, x) in enumerate(zip(states, xs, strict=True))
    ]
    errors = _errors(config, encoded, y, teams)
    squared = teams.tokens.sum(errors[-1].square().sum(dim=0)).unflatten(0, (-1, width)).sum(dim=1)
    if not squared.isfinite().all():
        raise DictionaryError(
            f"the loss of step {states[0].steps} is {float(squared.sum())}; lower the learning "
            "rate, or check that the activations are finite"
        )
    gradients = losses.fidelity_gradients(errors, variance)
    metrics = []
    for part, own_error, own_variance in zip(encoded, squared, variances, strict=True):
        l0 = _mean_l0(part.chosen.codes, teams)
        learned = [each[:, part.columns] for each in gradients]
        auxiliary, revival = _auxiliary(
            config, part, errors[-1][:, part.columns], variance[part.columns], aux_k, teams
        )
        batch = Batch(part.x, part.inputs, part.chosen, learned, l0, revival)
        update(config, part.state, batch, rate=rate, teams=teams)
        _count_idle(part.state, part.chosen.codes, teams)
        metrics.append(
            StepMetrics(
                squared_error=float(own_error),
                variance=float(own_variance),
                l0=l0,
                dead=part.n_dead / (len(part.state.idle_tokens) * teams.features.size),
                auxiliary=auxiliary,
            )
        )
    return metrics


def _encode(
    config: TrainConfig,
    state: TrainState,
    x: Float[Tensor, "N d_in"],
    first_column: int,
    aux_k: int,
    dead_after: int,
    teams: Teams,
) -> _Encoded:
    inputs = x - state.parameters.b_dec if config.kind == "sae" else x
    dead = (state.idle_tokens >= dead_after).nonzero().flatten()
    n_dead = int(teams.features.sum(torch.tensor(len(dead), device=x.device)))
    chosen, dead_codes, state.width = encode(
        config,
        RULES[config.activation],
        state.parameters,
        inputs,
        dead=dead,
        dead_k=min(aux_k, n_dead),
        teams=teams,
        width=state.width,
        W_enc=state.W_enc_low,
    )
    columns = slice(first_column, first_column + state.parameters.W_dec.shape[1])
    return _Encoded(state, x, inputs, columns, chosen, dead_codes, n_dead)


def _errors(
    config: TrainConfig, encoded: Sequence[_Encoded], y: Float[Tensor, "N D"], teams: Teams
) -> list[Float[Tensor, "N D"]]:
    """What is missed by the features of parts 0 to i, for every i (see `TrainConfig.parts`)."""
    error = y - torch.cat([part.state.parameters.b_dec for part in encoded])
    for part in encoded:
        if part.state.parameters.W_skip is not None:
            error.addmm_(part.x, part.state.parameters.W_skip.T, alpha=-1)
    by_part = [by_prefix(config, part.chosen.codes, teams.features) for part in encoded]
    errors = []
    for codes in zip(*by_part, strict=True):
        written = torch.zeros_like(error)
        for part, own in zip(encoded, codes, strict=True):
            written[:, part.columns] += decode(own.values, own.indices, part.state.parameters.W_dec)
        error = error - teams.features.sum(written)
        errors.append(error)
    return errors


def _auxiliary(
    config: TrainConfig,
    part: _Encoded,
    error: Float[Tensor, "N D"],
    variance: Float[Tensor, " D"],
    aux_k: int,
    teams: Teams,
) -> tuple[float, Revival | None]:
    """The loss on what dead features make of the error, and what they learn from it."""
    codes = part.dead_codes
    if codes is None:
        return 0.0, None
    weight = config.aux_coefficient * losses.auxiliary_scale(part.n_dead, aux_k)
    error_hat = decode(codes.values, codes.indices, part.state.parameters.W_dec)
    error_hat = teams.features.sum(error_hat)
    missed = ((error_hat - error).square().sum(dim=0) / variance).sum()
    gradient = losses.auxiliary_gradient(error_hat, error, variance, weight)
    return weight * float(teams.tokens.sum(missed)), Revival(codes, gradient)


def _mean_l0(codes: SparseCodes, teams: Teams) -> float:
    """Active features a token, over all processes."""
    active = teams.tokens.sum(teams.features.sum((codes.values != 0).sum()))
    return int(active) / (len(codes.values) * teams.tokens.size)


def _count_idle(state: TrainState, codes: SparseCodes, teams: Teams) -> None:
    fired = torch.zeros_like(state.parameters.b_enc)
    fired[codes.indices[codes.values > 0]] = 1
    state.idle_tokens += len(codes.values) * teams.tokens.size
    state.idle_tokens[teams.tokens.sum(fired) > 0] = 0
