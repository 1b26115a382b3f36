"""Reading the residual stream as predictions: the logit lens, and translators for the tuned lens.

The logit lens gives every residual to the final norm and the unembedding (nostalgebraist 2020). A
tuned lens translates the residual first (Belrose et al. 2023, see `tuned_lens`). The control reads
the same residuals through an unembedding whose rows are shuffled: what a lens of that shape gets
from frequencies of tokens alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from pellucid.models.model import LanguageModel
from pellucid.models.resume import read_out, record

Translate = Callable[[int, Float[Tensor, "N d"]], Float[Tensor, "N d"]]
"""From a layer and its residuals to residuals of the last layer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LensResult:
    """What each residual of a prompt predicts.

    Attributes:
        places: `resid_pre@0` ... and the last layer's `resid_post`.
        tokens: of the prompt.
        followed: texts of the tokens whose probability is given.
        top: most probable token, `[places][positions]`.
        probability: of the followed tokens, `[followed, places, positions]`.
        kl: KL(final || lens) at the last position, in nats, one a place.
        kl_shuffled: the same through a shuffled unembedding.
    """

    places: list[str]
    tokens: list[str]
    followed: list[str]
    top: list[list[str]]
    probability: Float64[np.ndarray, "F R P"]
    kl: Float64[np.ndarray, " R"]
    kl_shuffled: Float64[np.ndarray, " R"]

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return {
            "places": self.places,
            "tokens": self.tokens,
            "top": self.top,
            "probability": dict(zip(self.followed, self.probability.tolist(), strict=True)),
            "kl": self.kl.tolist(),
            "controls": {"kl_shuffled": self.kl_shuffled.tolist()},
        }

    def save(self, path: Path) -> Path:
        """Draw one map of probabilities a followed token.

        Args:
            path: ends in .png or .svg.

        Raises:
            ConfigError: it ends in something else.
            StorageError: it cannot be written.
        """
        from pellucid.core.pictures import save_picture
        from pellucid.interventions.tracing.draw import heat_map

        panels = {
            f"probability of {name}": values
            for name, values in zip(self.followed, self.probability, strict=True)
        }
        figure = heat_map("lens", panels, self.places, self.tokens, unit="probability")
        return save_picture(figure, Path(path))


@torch.no_grad()
def lens(
    model: LanguageModel,
    ids: Int[Tensor, " S"],
    follow: Sequence[int] = (),
    *,
    translate: Translate | None = None,
    seed: int = 0,
) -> LensResult:
    """Read every residual of a prompt as a prediction of the next token.

    Args:
        model: to run.
        ids: the prompt.
        follow: ids of tokens whose probability is wanted; the model's answer if not given.
        translate: makes residuals of a layer into such of the last, as a `TunedLens` does; None
            for the logit lens.
        seed: of the control's shuffling.

    Raises:
        SiteError: the model's family is not known.
    """
    (run,) = record(model, ids[None])
    chosen = list(follow) or [int(run.logits.argmax())]
    residuals = [
        each if translate is None or layer == model.n_layers else translate(layer, each)
        for layer, each in enumerate(run.residuals)
    ]
    log_p = torch.stack([read_out(model, each).float().log_softmax(-1) for each in residuals])
    final = run.logits.float().log_softmax(-1)
    order = torch.randperm(model.vocab_size, generator=torch.Generator().manual_seed(seed))
    shuffled = log_p[:, -1][:, order.to(log_p.device)]
    names = [f"resid_pre@{layer}" for layer in range(model.n_layers)]
    return LensResult(
        places=[*names, f"resid_post@{model.n_layers - 1}"],
        tokens=model.token_texts(ids),
        followed=model.token_texts(chosen),
        top=[model.token_texts(row) for row in log_p.argmax(-1)],
        probability=log_p[..., chosen].exp().permute(2, 0, 1).double().cpu().numpy(),
        kl=divergence(final, log_p[:, -1]).double().cpu().numpy(),
        kl_shuffled=divergence(final, shuffled).double().cpu().numpy(),
    )


def divergence(log_p: Float[Tensor, "*N V"], log_q: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """KL(p || q) in nats."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
