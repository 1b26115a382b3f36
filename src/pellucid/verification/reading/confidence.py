"""How sure the model was of the tokens that it wrote: scores of a step that cost nothing.

Each is turned so that a higher score means a step that is more likely wrong. p is the model's
distribution over the next token, z its logits. Suffixes: T tokens of the step, V vocabulary.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import DataError

TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Temperatures at which `max_prob` and `energy` are kept; a method chooses one in training."""
ANSWER = "answer."
"""What the name of a score begins with when only the tokens of the answer are read."""

CONFIDENCE: Mapping[str, str] = {
    "max_prob": "1 - mean over tokens of max p",
    "worst_max_prob": "1 - least max p of a token",
    "perplexity": "mean of -log p of the token written",
    "max_perplexity": "mean of -log max p",
    "least_token": "largest -log p of a token written",
    "entropy": "mean entropy of p, in nats",
    "max_entropy": "largest entropy of a token's p, in nats",
    "margin": "mean of (second largest p - largest p)",
    "least_margin": "largest (second largest p - largest p)",
    **{
        f"max_prob_t{each:g}": f"1 - mean of max softmax(z / {each:g})"
        for each in TEMPERATURES
        if each != 1
    },
    **{f"energy_t{each:g}": f"mean of -T logsumexp(z / T), T = {each:g}" for each in TEMPERATURES},
}
"""Score -> its definition."""


def confidence_scores(
    logits: Float[Tensor, "T V"],
    ids: Int[Tensor, " T"],
    answer: tuple[int, int] | None = None,
) -> dict[str, float]:
    """Every score of `CONFIDENCE` over some tokens, and each again over the answer among them.

    Sources: MaxProb, perplexity and entropy as in Wang et al. 2024 (arXiv 2410.13640) and Zhao et
    al. 2025 (2510.09312), perplexity also of the token written; energy as in Liu et al. 2020
    (2010.03759); temperature as in Guo et al. 2017 (1706.04599).

    Args:
        logits: `logits[t]` predicted `ids[t]`.
        ids: the tokens.
        answer: half-open range of `ids` that holds the answer, if that is wanted too.

    Returns:
        Score -> value; those of the answer are named `answer.` and the score.

    Raises:
        DataError: there is no token, or the answer is not within the step.
    """
    low, high = answer or (0, len(ids))
    if logits.ndim != 2 or len(logits) != len(ids) or not 0 <= low < high <= len(ids):
        raise DataError(
            f"{tuple(logits.shape)} logits, {len(ids)} tokens and the answer {low}:{high} do not "
            "fit; give one row of logits a token and an answer of at least one token"
        )
    by_token = _by_token(logits.detach().double(), ids)
    whole = {name: _over(name, values) for name, values in by_token.items()}
    if answer is None:
        return whole
    return whole | {ANSWER + n: _over(n, values[low:high]) for n, values in by_token.items()}


def _by_token(
    logits_TV: Float[Tensor, "T V"], ids: Int[Tensor, " T"]
) -> dict[str, Float[Tensor, " T"]]:
    """Each score of every token."""
    log_p = torch.log_softmax(logits_TV, -1)
    first, second = log_p.topk(2, -1).values.unbind(-1)
    written = -log_p.gather(-1, ids.to(log_p.device, torch.long)[:, None]).squeeze(-1)
    entropy = -torch.xlogy(log_p.exp(), log_p.exp()).sum(-1)
    margin = second.exp() - first.exp()
    found = {
        "max_prob": -torch.expm1(first),
        "worst_max_prob": -torch.expm1(first),
        "perplexity": written,
        "max_perplexity": -first,
        "least_token": written,
        "entropy": entropy,
        "max_entropy": entropy,
        "margin": margin,
        "least_margin": margin,
    }
    for each in TEMPERATURES:
        total = torch.logsumexp(logits_TV / each, -1)
        found[f"energy_t{each:g}"] = -each * total
        if each != 1:
            largest = logits_TV.amax(-1) / each
            found[f"max_prob_t{each:g}"] = -torch.expm1(largest - total)
    return found


def _over(name: str, values: Float[Tensor, " T"]) -> float:
    worst = name.startswith(("worst", "least", "max_entropy"))
    return float(values.max() if worst else values.mean())
