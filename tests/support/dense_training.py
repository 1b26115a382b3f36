"""The training objective written densely for autograd: the oracle of the sparse step."""

import torch
from torch import Tensor

from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters


def _keep_topk(pre: Tensor, k: int) -> Tensor:
    """relu(pre) where it is among the k largest of its row, else 0."""
    kth = pre.detach().sort(dim=1, descending=True).values[:, k - 1 : k]
    return torch.relu(pre) * (pre.detach() >= kth)


def dense_loss(
    config: TrainConfig, parameters: Parameters, x: Tensor, y: Tensor, dead: Tensor
) -> Tensor:
    """FVU plus the auxiliary loss on features where `dead` is true."""
    read = x - parameters.b_dec if config.kind == "sae" else x
    pre = read @ parameters.W_enc.T + parameters.b_enc
    y_hat = _keep_topk(pre, config.k) @ parameters.W_dec + parameters.b_dec
    if parameters.W_skip is not None:
        y_hat = y_hat + x @ parameters.W_skip.T
    error = y - y_hat
    variance = ((y - y.mean(dim=0)) ** 2).sum()
    loss = (error**2).sum() / variance
    n_dead, aux_k = int(dead.sum()), config.aux_k or y.shape[1] // 2
    if n_dead:
        codes = _keep_topk(pre.where(dead, -torch.inf), min(aux_k, n_dead))
        error_hat = codes @ parameters.W_dec
        scale = min(n_dead / aux_k, 1)
        auxiliary = scale * ((error_hat - error.detach()) ** 2).sum() / variance
        loss = loss + config.aux_coefficient * auxiliary
    return loss


def dense_gradients(
    config: TrainConfig, parameters: Parameters, x: Tensor, y: Tensor, dead: Tensor
) -> dict[str, Tensor]:
    """Gradients of `dense_loss` by every parameter, in float64."""
    tensors = {
        name: tensor.double().clone().requires_grad_()
        for name, tensor in parameters.tensors().items()
    }
    loss = dense_loss(config, Parameters.from_tensors(tensors), x.double(), y.double(), dead)
    return dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True))
