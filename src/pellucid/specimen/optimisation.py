"""The pure parts of the specimen's training: schedule, loss, optimiser, one step."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from pellucid.specimen import vocabulary

IGNORED = -100


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to `peak`, then linear decay that reaches 0 after `total_steps`."""
    rising = (step + 1) / warmup_steps
    falling = (total_steps - step) / max(1, total_steps - warmup_steps)
    return peak * min(1.0, rising, falling)


def next_token_targets(ids: Int[Tensor, "batch sequence"]) -> Int[Tensor, "batch sequence"]:
    """The following token at each position, ignored where that is `<bos>` or beyond the end.

    The start of the next document cannot be foreseen; the end of this one (`<eos>`) is learned.
    """
    following = torch.full_like(ids, IGNORED)
    following[:, :-1] = ids[:, 1:]
    return following.masked_fill(following == vocabulary.BOS_ID, IGNORED)


def loss_of(
    logits: Float[Tensor, "batch sequence vocabulary"], ids: Int[Tensor, "batch sequence"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over the predicted tokens."""
    targets = next_token_targets(ids)
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED
    )


def build_optimiser(model: LlamaForCausalLM, *, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with betas (.9, .98); gains of norms are not decayed."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)


def train_step(
    model: LlamaForCausalLM,
    optimiser: torch.optim.AdamW,
    ids: Int[Tensor, "batch sequence"],
    *,
    rate: float,
    clip: float,
) -> float:
    """One update in bfloat16 autocast; returns the loss before it."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits
    loss = loss_of(logits, ids)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    return float(loss.detach())
