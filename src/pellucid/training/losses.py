"""The training objective and its gradient with respect to what the dictionary outputs.

With e = y - y_hat and V = sum (y - mean_batch y)^2 (Gao et al. 2024; EleutherAI sparsify):

    loss = sum e^2 / V + alpha * s * sum (e_hat - stop_gradient(e))^2 / V

e_hat is decoded, without bias, from the k_aux = min(aux_k, n_dead) most active DEAD features of
each token, and s = min(n_dead / aux_k, 1). Its gradient reaches decoder AND encoder, so that dead
features move towards inputs that the living fail on.
"""

from jaxtyping import Float
from torch import Tensor


def batch_variance(y: Float[Tensor, "N d"]) -> Tensor:
    """V: the summed squared distance of y from its mean over the batch, a scalar."""
    return (y - y.mean(dim=0)).square().sum().clamp_min(1e-30)


def fidelity_gradient(error: Float[Tensor, "N d"], variance: Tensor) -> Float[Tensor, "N d"]:
    """The derivative of sum e^2 / V by y_hat."""
    return error * (-2 / variance)


def auxiliary_scale(n_dead: int, aux_k: int) -> float:
    """s: how much the auxiliary loss counts while fewer than aux_k features are dead."""
    return min(n_dead / aux_k, 1.0)


def auxiliary_gradient(
    error_hat: Float[Tensor, "N d"], error: Float[Tensor, "N d"], variance: Tensor, weight: float
) -> Float[Tensor, "N d"]:
    """The derivative of weight * sum (e_hat - e)^2 / V by e_hat, e held constant."""
    return (error_hat - error) * (2 * weight / variance)
