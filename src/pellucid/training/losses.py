"""The training objective and its gradient with respect to what a dictionary outputs.

With e = y - y_hat and V = sum (y - mean_batch y)^2 (Gao et al. 2024; EleutherAI sparsify):

    loss = sum e^2 / V + alpha * s * sum (e_hat - stop_gradient(e))^2 / V

e_hat is decoded, without bias, from the k_aux = min(aux_k, n_dead) most active DEAD features of
each token, and s = min(n_dead / aux_k, 1). Its gradient reaches decoder AND encoder, so that dead
features move towards inputs that the living fail on.

With prefixes (Matryoshka) the first term is the mean over them and the whole; e in the second is
that of the whole. Several outputs, of a cross-layer transcoder, each have their own V; their losses
add up.
"""

from collections.abc import Sequence
from itertools import accumulate

from jaxtyping import Float
from torch import Tensor

from pellucid.distributed.team import Team


def batch_variance(y: Float[Tensor, "N d"], tokens: Team) -> Tensor:
    """V: the summed squared distance of y from its mean over the batch, a scalar.

    Args:
        y: this process's share of the batch.
        tokens: the processes that have the other shares.
    """
    mean = tokens.sum(y.mean(dim=0)) / tokens.size
    return tokens.sum((y - mean).square().sum()).clamp_min(1e-30)


def fidelity_gradients(
    errors: Sequence[Float[Tensor, "N D"]], variance: Float[Tensor, " D"]
) -> list[Float[Tensor, "N D"]]:
    """The derivatives of the mean of sum e^2 / V by what each part of the features writes.

    Args:
        errors: of the reconstruction by parts 0 to i, for every i.
        variance: the V of each column's output.
    """
    # A part is in every reconstruction from its own on.
    sums = list(accumulate(reversed(errors)))[::-1]
    return [total * (-2 / (len(errors) * variance)) for total in sums]


def auxiliary_scale(n_dead: int, aux_k: int) -> float:
    """s: how much the auxiliary loss counts while fewer than aux_k features are dead."""
    return min(n_dead / aux_k, 1.0)


def auxiliary_gradient(
    error_hat: Float[Tensor, "N D"],
    error: Float[Tensor, "N D"],
    variance: Float[Tensor, " D"],
    weight: float,
) -> Float[Tensor, "N D"]:
    """The derivative of weight * sum (e_hat - e)^2 / V by e_hat, e held constant."""
    return (error_hat - error) * (2 * weight / variance)
