"""Direct logit attribution: what every component writes straight to a logit.

With the final norm's scale frozen, a logit before any softcap is a sum over the components that
write to the last residual:

    logit(t) = sum over components c of  W_U[t] . (centre(c) * scale * gain)  +  constant

The components are the embedding, every attention head, every attention bias and every MLP. What a
component does by way of later components is not in its share.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import HeadSite
from pellucid.core.types import Site
from pellucid.interventions.tracing.slots import slot
from pellucid.models.linear import NormWeights
from pellucid.models.model import LanguageModel
from pellucid.models.resume import record
from pellucid.models.taps import TapPoint

RANDOM_PAIRS = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DirectAttribution:
    """Contributions to one logit, or to the difference of two, at the last position.

    Attributes:
        names: of the components, in order of depth, `constant` last.
        contributions: in logits; they sum to `total`.
        spread: the control: root mean square of the component's contributions to the difference of
            two random tokens' logits.
        total: the logit (or difference) before any softcap.
        answer_text, other_text: the tokens; `other_text` is None for a single logit.
        capped: the model caps its logits, so `total` is not what it prints.
    """

    names: list[str]
    contributions: Float64[np.ndarray, " n"]
    spread: Float64[np.ndarray, " n"]
    total: float
    answer_text: str
    other_text: str | None
    capped: bool

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        rows = zip(self.names, self.contributions, self.spread, strict=True)
        return {
            "components": [
                {"name": name, "contribution": float(value), "random_pairs": float(spread)}
                for name, value, spread in rows
            ],
            "total": self.total,
            "sum_error": abs(float(self.contributions.sum()) - self.total),
            "answer": self.answer_text,
            "other": self.other_text,
            "softcapped": self.capped,
        }

    def save(self, path: Path) -> Path:
        """Draw bars, a component each, beside their spread on random tokens.

        Args:
            path: ends in .png or .svg.

        Raises:
            ConfigError: it ends in something else.
            StorageError: it cannot be written.
        """
        from pellucid.core.pictures import save_picture
        from pellucid.interventions.tracing.draw import bars

        what = (
            self.answer_text
            if self.other_text is None
            else f"{self.answer_text} - {self.other_text}"
        )
        figure = bars(
            f"direct contributions to logit({what})", self.names, self.contributions, self.spread
        )
        return save_picture(figure, Path(path))


@torch.no_grad()
def direct_attribution(
    model: LanguageModel,
    ids: Int[Tensor, " S"],
    answer: int,
    other: int | None = None,
    *,
    seed: int = 0,
) -> DirectAttribution:
    """Take the logit of `answer` (less that of `other`) apart into direct contributions.

    Args:
        model: to run.
        ids: the prompt.
        answer: id of a token.
        other: id of another, or None.
        seed: of the random tokens of the control.

    Raises:
        InterventionError: a token is outside the vocabulary.
        SiteError: the model's family is not known.
    """
    for token in (answer, *(() if other is None else (other,))):
        if not 0 <= token < model.vocab_size:
            raise InterventionError(
                f"token {token} is outside the vocabulary; use 0 to {model.vocab_size - 1}"
            )
    names, written = components(model, ids)
    norm, unembedding = model.final_norm(), model.unembedding().to(written.dtype)
    scale = norm.scale(written.sum(0))
    read = norm.centre(written) * scale * norm.gain
    constant = unembedding.new_zeros(model.vocab_size)
    if norm.bias is not None:
        constant = constant + unembedding @ norm.bias.to(unembedding)
    bias = model.unembedding_bias()
    constant = constant if bias is None else constant + bias.to(constant)

    def shares(first: Tensor, second: Tensor | None) -> Tensor:
        rows, fixed = unembedding[first], constant[first]
        if second is not None:
            rows, fixed = rows - unembedding[second], fixed - constant[second]
        return torch.cat([read @ rows.T, fixed[None]])

    chosen = torch.tensor([answer], device=written.device)
    rival = None if other is None else torch.tensor([other], device=written.device)
    own = shares(chosen, rival)[:, 0].double().cpu().numpy()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(model.vocab_size, (2, RANDOM_PAIRS), generator=generator)
    random = shares(*drawn.to(written.device)).double().square().mean(1).sqrt().cpu().numpy()
    texts = model.token_texts([answer] if other is None else [answer, other])
    return DirectAttribution(
        names=[*names, "constant"],
        contributions=own,
        spread=random,
        total=_uncapped(model, ids, answer, other),
        answer_text=texts[0],
        other_text=texts[1] if len(texts) > 1 else None,
        capped=model.logit_softcap is not None,
    )


@torch.no_grad()
def components(
    model: LanguageModel, ids: Int[Tensor, " S"], position: int = -1
) -> tuple[list[str], Float[Tensor, "n d"]]:
    """What the embedding, every head, every attention bias and every MLP writes at a position.

    Where attention's output is normed before it is added, each head's share of it is taken with
    the norm's scale as it was. The vectors sum to the last residual at the position.

    Args:
        model: to run.
        ids: the prompt.
        position: where it is written.

    Raises:
        SiteError: the model's family is not known.
    """
    layers = range(model.n_layers)
    z = [slot(model, HeadSite("z", layer)).point for layer in layers]
    raw = [model.attention_pattern_point(layer) for layer in layers]
    mlp = [model.point(Site("mlp_out", layer)) for layer in layers]
    (run,) = record(model, ids[None], keep=[*z, *raw, *mlp])

    def at(point: TapPoint) -> Tensor:
        return run.kept[point][position].float()

    names, written = ["embed"], [run.residuals[0][position].float()[None]]
    for layer in layers:
        block = model.block(layer)
        attention = block.attention
        w_o = attention.w_o.float().unflatten(0, (attention.n_heads, attention.d_head))
        heads = torch.einsum("hc,hcd->hd", at(z[layer]).unflatten(0, (attention.n_heads, -1)), w_o)
        names += [f"head@{layer}[{head}]" for head in range(attention.n_heads)]
        if attention.b_o is not None:
            heads = torch.cat([heads, attention.b_o.float()[None]])
            names.append(f"attn_bias@{layer}")
        written.append(_normed(block.attn_post_norm, heads, at(raw[layer])))
        written.append(at(mlp[layer])[None])
        names.append(f"mlp@{layer}")
    return names, torch.cat(written)


def _normed(
    norm: NormWeights | None, parts: Float[Tensor, "n d"], whole: Float[Tensor, " d"]
) -> Float[Tensor, "n d"]:
    """Each part's share of the normed whole (such norms have no bias in any family)."""
    return parts if norm is None else norm.centre(parts) * norm.scale(whole) * norm.gain


def _uncapped(
    model: LanguageModel, ids: Int[Tensor, " S"], answer: int, other: int | None
) -> float:
    assert model.spec is not None
    kept: list[Tensor] = []
    with model.tapped([(model.unembedding_point(), lambda value, _: kept.append(value))]):
        model.logits(ids[None])
    logits = kept[0][0, -1].double()
    return float(logits[answer] - (0.0 if other is None else logits[other]))
