"""One training step of a TopK dictionary without dense gradients.

Encoder product and top-k by blocks of tokens, sparse decoding, and gradients straight from the
active (token, feature) pairs: 2 d F + 8 k d operations a token, where dense autograd pays 10 d F.
Gradients and optimiser go over the weights together, a block of rows at a time, so that a row is
fetched from memory once a step and no gradient of a whole matrix exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import SparseCodes
from pellucid.kernels.dispatch import decode, linear_relu_topk, relu_topk, row_gradients
from pellucid.kernels.pairs import pair_by_feature
from pellucid.training import losses
from pellucid.training.config import TrainConfig
from pellucid.training.optim import adam_update
from pellucid.training.parameters import Parameters

# A block of pre-activations stays in the last cache level and below malloc's largest mmap threshold
# (32 MiB), past which every block would be fresh zeroed pages.
_BLOCK_BYTES = 24 * 2**20
_ROWS = 1024
# Every block is a queue of launches to a GPU, and blocks of rows are cut where its pairs are known.
_GPU_BLOCK_BYTES = 2**28
_GPU_GRADIENT_BYTES = 2**29


@dataclass(slots=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
        parameters: at unit scale, float32.
        first: Adam's running mean of each gradient.
        second: Adam's running mean of each squared gradient.
        idle_tokens: tokens since each feature last fired.
        steps: updates done.
        W_enc_low: copy of W_enc in the encoder's dtype, where that is not float32.
    """

    parameters: Parameters
    first: Parameters
    second: Parameters
    idle_tokens: Int[Tensor, " F"]
    steps: int
    W_enc_low: Tensor | None

    @classmethod
    def start(cls, config: TrainConfig, parameters: Parameters) -> "TrainState":
        """The state before the first step."""
        idle = torch.zeros_like(parameters.b_enc, dtype=torch.int64)
        first, second = parameters.zeros_like(), parameters.zeros_like()
        return cls(parameters, first, second, idle, 0, low_precision(config, parameters))


def low_precision(config: TrainConfig, parameters: Parameters) -> Tensor | None:
    """The copy of W_enc that the encoder multiplies, or None where it is W_enc itself."""
    dtype = config.encoder_dtype()
    return None if dtype == torch.float32 else parameters.W_enc.to(dtype)


class StepMetrics(NamedTuple):
    """What one step saw, before its update.

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


@torch.no_grad()
def train_step(
    config: TrainConfig,
    state: TrainState,
    x: Float[Tensor, "N d_in"],
    y: Float[Tensor, "N d_out"],
    *,
    rate: float,
    dead_after: int,
) -> StepMetrics:
    """Update `state` in place by one step on a batch of activations at unit scale.

    Activations and parameters share one dtype (float32; tests use float64).

    Args:
        config: kind, k, auxiliary loss, Adam and precision.
        state: what to update.
        x: what the dictionary reads.
        y: what it should write.
        rate: the learning rate.
        dead_after: tokens without firing after which a feature counts as dead.

    Raises:
        DictionaryError: the loss is not finite; the state is as it was.
    """
    parameters = state.parameters
    inputs = x - parameters.b_dec if config.kind == "sae" else x
    dead = (state.idle_tokens >= dead_after).nonzero().flatten()
    aux_k = config.aux_k or max(1, y.shape[1] // 2)
    codes, dead_codes = encode(config, state, inputs, dead, min(aux_k, len(dead)))

    y_hat = decode(codes.values, codes.indices, parameters.W_dec) + parameters.b_dec
    if parameters.W_skip is not None:
        y_hat.addmm_(x, parameters.W_skip.T)
    error = y - y_hat
    squared_error, variance = error.square().sum(), losses.batch_variance(y)
    if not squared_error.isfinite():
        raise DictionaryError(
            f"the loss of step {state.steps} is {float(squared_error)}; lower the learning rate, "
            "or check that the activations are finite"
        )
    gradient = losses.fidelity_gradient(error, variance)
    auxiliary = 0.0
    reconstructions, gradients = [codes], [gradient]
    if dead_codes is not None:
        weight = config.aux_coefficient * losses.auxiliary_scale(len(dead), aux_k)
        error_hat = decode(dead_codes.values, dead_codes.indices, parameters.W_dec)
        auxiliary = weight * float((error_hat - error).square().sum() / variance)
        reconstructions.append(dead_codes)
        gradients.append(losses.auxiliary_gradient(error_hat, error, variance, weight))
    _update(config, state, reconstructions, gradients, x, inputs, rate)
    _count_idle(state, codes)
    return StepMetrics(
        squared_error=float(squared_error),
        variance=float(variance),
        l0=float(codes.l0().mean()),
        dead=len(dead) / len(parameters.b_enc),
        auxiliary=auxiliary,
    )


def encode(
    config: TrainConfig,
    state: TrainState,
    inputs: Float[Tensor, "N d_in"],
    dead: Int[Tensor, " n_dead"],
    dead_k: int,
) -> tuple[SparseCodes, SparseCodes | None]:
    """The k most active features of each token and, if `dead_k`, the most active dead ones."""
    weight = state.parameters.W_enc if state.W_enc_low is None else state.W_enc_low
    bias = state.parameters.b_enc.to(weight.dtype)
    most = _BLOCK_BYTES if weight.device.type == "cpu" else _GPU_BLOCK_BYTES
    block = max(1, most // (len(weight) * weight.element_size()))
    living: list[tuple[Tensor, Tensor]] = []
    revived: list[tuple[Tensor, Tensor]] = []
    for part in inputs.split(block):
        values, columns, pre = linear_relu_topk(part.to(weight.dtype), weight, bias, config.k)
        living.append((values, columns))
        if dead_k:
            values, columns = relu_topk(pre.index_select(1, dead), dead_k)
            revived.append((values, dead[columns]))
    like = state.parameters.b_enc
    return _join(living, like), _join(revived, like) if revived else None


def _join(parts: Sequence[tuple[Tensor, Tensor]], like: Float[Tensor, " F"]) -> SparseCodes:
    values, indices = (torch.cat(column) for column in zip(*parts, strict=True))
    return SparseCodes(values.to(like.dtype), indices, len(like))


def _update(
    config: TrainConfig,
    state: TrainState,
    reconstructions: Sequence[SparseCodes],
    gradients: Sequence[Tensor],
    x: Float[Tensor, "N d_in"],
    inputs: Float[Tensor, "N d_in"],
    rate: float,
) -> None:
    """Back-propagate through the codes and apply Adam, a block of rows at a time."""
    parameters = state.parameters
    pairs = pair_by_feature(reconstructions)
    output_gradients = torch.cat(list(gradients))
    b_dec_gradient = gradients[0].sum(dim=0)

    def apply(name: str, gradient: Tensor, rows: slice = slice(None)) -> None:
        parameter, first, second = (
            getattr(part, name)[rows] for part in (parameters, state.first, state.second)
        )
        adam_update(parameter, gradient, first, second, config=config, rate=rate, step=state.steps)

    at_once = _rows_at_once(parameters)
    for start in range(0, len(parameters.W_enc), at_once):
        rows = slice(start, min(start + at_once, len(parameters.W_enc)))
        found = row_gradients(
            pairs.rows(rows.start, rows.stop), output_gradients, inputs, parameters.W_dec[rows]
        )
        if config.kind == "sae":
            b_dec_gradient -= found.b_enc @ parameters.W_enc[rows]  # through x - b_dec
        apply("W_enc", found.W_enc, rows)
        apply("b_enc", found.b_enc, rows)
        apply("W_dec", found.W_dec, rows)
        if state.W_enc_low is not None:
            state.W_enc_low[rows].copy_(parameters.W_enc[rows])
    apply("b_dec", b_dec_gradient)
    if parameters.W_skip is not None:
        apply("W_skip", gradients[0].T @ x)
    state.steps += 1


def _rows_at_once(parameters: Parameters) -> int:
    """Rows of the weights whose gradients exist at the same time."""
    if parameters.W_enc.device.type == "cpu":
        return _ROWS
    row_bytes = parameters.W_enc[0].nbytes + parameters.W_dec[0].nbytes
    return max(1, _GPU_GRADIENT_BYTES // row_bytes)


def _count_idle(state: TrainState, codes: SparseCodes) -> None:
    state.idle_tokens += len(codes.values)
    state.idle_tokens[codes.indices[codes.values > 0]] = 0
