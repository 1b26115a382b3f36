"""Scoring predictions document by document, and the uncertainty that documents bring."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.evaluation.rows import DocumentBatch

Figures = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Sums over documents -> figures; elementwise, so that sums may be resampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSums:
    """Sums over each document's scored positions. D documents.

    Attributes:
        count: scored positions.
        nll: negative log-likelihood of the next token, in nats.
        kl: KL(original || this), in nats.
        same: positions whose most likely token is the original's.
    """

    count: Float[Tensor, " D"]
    nll: Float[Tensor, " D"]
    kl: Float[Tensor, " D"]
    same: Float[Tensor, " D"]

    @classmethod
    def zeros(cls, documents: int) -> "DocumentSums":
        """Nothing added yet."""
        return cls(**{name: torch.zeros(documents, dtype=torch.float64) for name in cls.__slots__})

    def add(
        self,
        batch: DocumentBatch,
        original: Float[Tensor, "B S V"],
        other: Float[Tensor, "B S V"],
    ) -> None:
        """Score one batch: `original` and `other` are log-probabilities."""
        original, other = original[:, :-1], other[:, :-1]
        scored = batch.scored
        nll = -other.gather(-1, batch.ids[:, 1:, None])[..., 0]
        kl = (original.exp() * (original - other)).sum(dim=-1)
        same = original.argmax(dim=-1) == other.argmax(dim=-1)
        for total, values in (
            (self.count, scored),
            (self.nll, nll),
            (self.kl, kl),
            (self.same, same),
        ):
            rows = torch.where(scored, values, 0).double().sum(dim=1)
            total.index_add_(0, batch.document, rows.cpu())


def log_probabilities(logits: Float[Tensor, "B S V"]) -> Float[Tensor, "B S V"]:
    """Log-softmax in float32."""
    return torch.log_softmax(logits.float(), dim=-1)


def document_weights(documents: int, *, seed: int, resamples: int) -> Iterator[Float[Tensor, " D"]]:
    """How often each document is drawn, resample by resample: D of D, with replacement."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(resamples):
        drawn = torch.randint(documents, (documents,), generator=generator)
        yield torch.bincount(drawn, minlength=documents).double()


def bootstrap_intervals(
    sums: dict[str, Float[Tensor, " D"]], figures: Figures, *, seed: int, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """95% percentile intervals of figures under resampling of documents with replacement."""
    stacked = torch.stack(list(sums.values()))
    resampled = torch.empty(len(stacked), resamples, dtype=stacked.dtype)
    drawn = document_weights(stacked.shape[1], seed=seed, resamples=resamples)
    for index, weights in enumerate(drawn):
        resampled[:, index] = stacked @ weights.to(stacked.dtype)
    values = figures(dict(zip(sums, resampled, strict=True)))
    edges = torch.tensor([0.025, 0.975], dtype=stacked.dtype)
    return {name: tuple(torch.quantile(v, edges).tolist()) for name, v in values.items()}
