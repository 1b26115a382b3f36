"""The training objective written densely for autograd: the oracle of the sparse step.

It sees dictionaries that are trained together (one, or a cross-layer transcoder's) as tensors by
name, and knows nothing of pairs, blocks or slots laid side by side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.training.config import TrainConfig

Named = dict[str, Tensor]
SPARSITY = {"jumprelu": 0.1, "relu": 0.05}
BANDWIDTH = 0.5


def _keep(pre: Tensor, kept: Tensor) -> Tensor:
    return torch.relu(pre) * kept


def _keep_topk(pre: Tensor, k: int) -> Tensor:
    """relu(pre) where it is among the k largest of its row, else 0."""
    kth = pre.detach().sort(dim=1, descending=True).values[:, k - 1 : k]
    return _keep(pre, pre.detach() >= kth)


def _keep_batch_topk(pre: Tensor, k: int) -> Tensor:
    """relu(pre) where it is among the k N largest of all, else 0."""
    cut = pre.detach().flatten().sort(descending=True).values[k * len(pre) - 1]
    return _keep(pre, pre.detach() >= cut)


class _Jump(torch.autograd.Function):
    """pre H(pre - theta) and H(pre - theta), with the straight-through derivatives by theta."""

    @staticmethod
    def forward(ctx, pre, theta, bandwidth):  # type: ignore[no-untyped-def]
        active = (pre > theta).to(pre.dtype)
        ctx.save_for_backward(pre, theta, active)
        ctx.bandwidth = bandwidth
        return pre * active, active

    @staticmethod
    def backward(ctx, of_values, of_active):  # type: ignore[no-untyped-def]
        pre, theta, active = ctx.saved_tensors
        # Below a window that reaches under zero nothing is near: a threshold is never negative.
        window = ((pre - theta).abs() < ctx.bandwidth / 2) & (pre > 0)
        kernel = window.to(pre.dtype) / ctx.bandwidth
        by_theta = -(of_values * theta + of_active) * kernel
        return of_values * active, by_theta.sum(dim=0), None


def _activate(config: TrainConfig, part: Named, pre: Tensor) -> tuple[Tensor, Tensor]:
    """Activations, and the penalty on them."""
    nothing = pre.new_zeros(())
    if config.activation == "topk":
        return _keep_topk(pre, config.k), nothing
    if config.activation == "batchtopk":
        return _keep_batch_topk(pre, config.k), nothing
    weight = config.sparsity or SPARSITY[config.activation]
    if config.activation == "relu":
        codes = torch.relu(pre)
        norms = part["W_dec"].norm(dim=1)
        return codes, weight * (codes @ norms).mean() / part["W_dec"].shape[1] ** 0.5
    codes, active = _Jump.apply(pre, part["threshold"], config.bandwidth or BANDWIDTH)
    return codes, weight * (active.sum(dim=1).mean() / config.k - 1) ** 2


def _variance(y: Tensor) -> Tensor:
    return ((y - y.mean(dim=0)) ** 2).sum()


def dense_loss(
    config: TrainConfig,
    parts: Sequence[Named],
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    dead: Sequence[Tensor],
) -> Tensor:
    """FVU of every output, penalties, and the auxiliary loss on features where `dead` is true."""
    width = ys[0].shape[1]
    pres, codes, loss = [], [], ys[0].new_zeros(())
    for part, x in zip(parts, xs, strict=True):
        read = x - part["b_dec"] if config.kind == "sae" else x
        pres.append(read @ part["W_enc"].T + part["b_enc"])
        values, penalty = _activate(config, part, pres[-1])
        codes.append(values)
        loss = loss + penalty
    ends = sorted({*config.prefixes, len(parts[0]["b_enc"])})
    errors: list[Tensor] = []
    for end in ends:
        errors = []
        for m, y in enumerate(ys):
            y_hat = parts[m]["b_dec"]
            if "W_skip" in parts[m]:
                y_hat = y_hat + xs[m] @ parts[m]["W_skip"].T
            for i in range(m + 1):
                slot = slice((m - i) * width, (m - i + 1) * width)
                y_hat = y_hat + codes[i][:, :end] @ parts[i]["W_dec"][:end, slot]
            errors.append(y - y_hat)
            loss = loss + (errors[-1] ** 2).sum() / _variance(y) / len(ends)
    for i, (part, pre) in enumerate(zip(parts, pres, strict=True)):
        n_dead, aux_k = int(dead[i].sum()), config.aux_k or width // 2
        if n_dead:
            found = _keep_topk(pre.where(dead[i], -torch.inf), min(aux_k, n_dead))
            for m in range(i, len(ys)):
                error_hat = found @ part["W_dec"][:, (m - i) * width : (m - i + 1) * width]
                missed = ((error_hat - errors[m].detach()) ** 2).sum() / _variance(ys[m])
                loss = loss + config.aux_coefficient * min(n_dead / aux_k, 1) * missed
    return loss


def dense_gradients(
    config: TrainConfig,
    parts: Sequence[Named],
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    dead: Sequence[Tensor],
) -> list[Named]:
    """Gradients of `dense_loss` by every tensor of every part, in float64."""
    leaves = [
        {name: tensor.double().clone().requires_grad_() for name, tensor in part.items()}
        for part in parts
    ]
    loss = dense_loss(config, leaves, [x.double() for x in xs], [y.double() for y in ys], dead)
    flat = [tensor for part in leaves for tensor in part.values()]
    found = iter(torch.autograd.grad(loss, flat))
    return [{name: next(found) for name in part} for part in leaves]
