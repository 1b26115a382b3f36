"""Back-propagation through sparse codes and the optimiser, a block of weight rows at a time."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import SparseCodes
from pellucid.distributed.team import Teams
from pellucid.kernels.dispatch import row_gradients
from pellucid.kernels.pairs import FeaturePairs, RowGradients, pair_by_feature
from pellucid.training.activations import RULES
from pellucid.training.activations.base import Chosen
from pellucid.training.config import TrainConfig
from pellucid.training.encoding import by_prefix
from pellucid.training.optim import adam_update
from pellucid.training.parameters import Parameters
from pellucid.training.state import TrainState

ROWS_AT_ONCE = 1024
GPU_GRADIENT_BYTES = 2**29  # blocks of rows are cut where a GPU's pairs are known: few of them


class Revival(NamedTuple):
    """What dead features learn: their codes, and the loss's derivative by what these decode to."""

    codes: SparseCodes
    gradient: Float[Tensor, "N D"]


class Batch(NamedTuple):
    """What one dictionary learns from.

    Attributes:
        x: what it reads.
        inputs: what its encoder matrix multiplies.
        chosen: what is active.
        gradients: the loss's derivative by what each part of the features writes.
        l0: mean active features a token.
        revival: of dead features, if there are any.
    """

    x: Float[Tensor, "N d_in"]
    inputs: Float[Tensor, "N d_in"]
    chosen: Chosen
    gradients: list[Float[Tensor, "N D"]]
    l0: float
    revival: Revival | None


class _Sources(NamedTuple):
    """Where a feature's gradients come from.

    Attributes:
        pairs: every active (token, feature) pair.
        gradients: the loss's derivative by every output that pairs write to. In a last column,
            where activations have a price, its derivative by activation times decoder norm.
        near: the pairs whose thresholds learn.
        priced: whether there is that last column.
    """

    pairs: FeaturePairs
    gradients: Float[Tensor, "M D"]
    near: FeaturePairs | None
    priced: bool


def update(
    config: TrainConfig, state: TrainState, batch: Batch, *, rate: float, teams: Teams
) -> None:
    """Apply Adam to every parameter, in place.

    Args:
        config: the settings.
        state: of the dictionary.
        batch: what it learns from.
        rate: the learning rate.
        teams: over which processes tokens and features are spread.
    """
    parameters = state.parameters
    sources = _sources(config, batch, teams)
    b_dec = batch.gradients[0][:, : len(parameters.b_dec)].sum(dim=0)
    through_inputs = torch.zeros_like(b_dec)

    def apply(name: str, gradient: Tensor, rows: slice = slice(None)) -> None:
        parameter, first, second = (
            getattr(part, name)[rows] for part in (parameters, state.first, state.second)
        )
        gradient = teams.tokens.sum(gradient)
        unit = name == "W_dec" and config.decoder_norm == "unit"
        if unit:
            gradient = gradient - (gradient * parameter).sum(dim=1, keepdim=True) * parameter
        adam_update(parameter, gradient, first, second, config=config, rate=rate, step=state.steps)
        if unit:
            parameter.copy_(torch.nn.functional.normalize(parameter))
        if state.average is not None:
            assert config.average is not None
            weight = _mean_weight(config.average, state.steps)
            getattr(state.average, name)[rows].lerp_(parameter, weight)

    at_once = _rows_at_once(parameters)
    for start in range(0, len(parameters.W_enc), at_once):
        rows = slice(start, min(start + at_once, len(parameters.W_enc)))
        if parameters.threshold is not None:
            slopes = _threshold_gradient(config, state, sources, batch, rows, teams.tokens.size)
            apply("threshold", slopes, rows)
        found = _row_gradients(sources, batch.inputs, parameters.W_dec[rows], rows)
        if config.kind == "sae":
            through_inputs += found.b_enc @ parameters.W_enc[rows]
        apply("W_enc", found.W_enc, rows)
        apply("b_enc", found.b_enc, rows)
        apply("W_dec", found.W_dec, rows)
        if state.W_enc_low is not None:
            state.W_enc_low[rows].copy_(parameters.W_enc[rows])
    if parameters.threshold is not None:
        parameters.threshold.clamp_(min=0)
    if config.kind == "sae":
        b_dec -= teams.features.sum(through_inputs)
    apply("b_dec", b_dec)
    if parameters.W_skip is not None:
        apply("W_skip", batch.gradients[0].T @ batch.x)
    if batch.chosen.cut is not None:
        memory = 0.9 if config.cut_memory is None else config.cut_memory
        state.cut += _mean_weight(memory, state.steps) * (batch.chosen.cut - state.cut)
    state.steps += 1


def _rows_at_once(parameters: Parameters) -> int:
    """Rows of the weights whose gradients exist at the same time."""
    if parameters.W_enc.device.type == "cpu":
        return ROWS_AT_ONCE
    row_bytes = parameters.W_enc[0].nbytes + parameters.W_dec[0].nbytes
    return max(1, GPU_GRADIENT_BYTES // row_bytes)


def _mean_weight(memory: float, steps: int) -> float:
    """How much a running mean takes of a new value: a plain mean at first."""
    return max(1 - memory, 1 / (steps + 1))


def _sources(config: TrainConfig, batch: Batch, teams: Teams) -> _Sources:
    codes = by_prefix(config, batch.chosen.codes, teams.features)
    gradients = list(batch.gradients)
    if batch.revival is not None:
        codes.append(batch.revival.codes)
        gradients.append(batch.revival.gradient)
    outputs = torch.cat(gradients)
    price = RULES[config.activation].price(config, outputs.shape[1])
    if price:
        n_tokens = len(batch.x)
        column = outputs.new_zeros(len(outputs), 1)
        column[: n_tokens * len(batch.gradients)] = price / (n_tokens * teams.tokens.size)
        outputs = torch.cat([outputs, column], dim=1)
    near = batch.chosen.near
    learning = None if near is None else pair_by_feature(by_prefix(config, near, teams.features))
    return _Sources(pair_by_feature(codes), outputs, learning, bool(price))


def _row_gradients(
    sources: _Sources, inputs: Float[Tensor, "N d_in"], W_dec: Float[Tensor, "f D"], rows: slice
) -> RowGradients:
    """The gradients of some features' rows.

    A price on activation times decoder norm is one more output: the norm is what each feature
    writes there.
    """
    pairs = sources.pairs.rows(rows.start, rows.stop)
    if not sources.priced:
        return row_gradients(pairs, sources.gradients, inputs, W_dec)
    norms = W_dec.norm(dim=1, keepdim=True)
    found = row_gradients(pairs, sources.gradients, inputs, torch.cat([W_dec, norms], dim=1))
    by_norm = found.W_dec[:, -1:] * W_dec / norms.clamp_min(1e-30)
    return found._replace(W_dec=found.W_dec[:, :-1] + by_norm)


def _threshold_gradient(
    config: TrainConfig,
    state: TrainState,
    sources: _Sources,
    batch: Batch,
    rows: slice,
    processes: int,
) -> Float[Tensor, " f"]:
    """This process's share of the gradient of some features' thresholds."""
    n_tokens = len(batch.x) * processes
    threshold, near = state.parameters.threshold, sources.near
    assert threshold is not None
    assert near is not None
    pairs = near.rows(rows.start, rows.stop)
    ones = batch.inputs.new_ones(len(batch.inputs), 1)
    W_dec = state.parameters.W_dec[rows]
    return RULES[config.activation].threshold_gradient(
        config,
        threshold[rows],
        aligned=row_gradients(pairs, sources.gradients, ones, W_dec).b_enc,
        near=pairs.offsets.diff().to(threshold.dtype) / n_tokens,
        l0=batch.l0,
    )
