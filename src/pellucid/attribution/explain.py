"""What a graph explains, as its user says it: logits, logit differences, features, directions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.attribution.linearise import LinearModel
from pellucid.attribution.targets import (
    Targets,
    concatenate,
    difference,
    feature_targets,
    unembedding_targets,
)
from pellucid.core.errors import ConfigError, PromptError
from pellucid.core.types import Site
from pellucid.models.model import LanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class TopLogits:
    """The likeliest next tokens, each as its logit minus the mean logit.

    Tokens are taken in order of probability until they hold `probability_mass`, at most
    `max_logits` of them; each weighs as much as its probability.
    """

    max_logits: int = 10
    probability_mass: float = 0.95

    def __post_init__(self) -> None:
        if self.max_logits < 1:
            raise ConfigError(f"max_logits is {self.max_logits}; give a number of at least 1")
        if not 0 < self.probability_mass <= 1:
            raise ConfigError(
                f"probability_mass is {self.probability_mass}; give a share between 0 and 1"
            )


@dataclass(frozen=True, slots=True)
class Logit:
    """One token's logit minus the mean logit; the token as text or as its id."""

    token: str | int


@dataclass(frozen=True, slots=True)
class LogitDifference:
    """The logit of one token minus that of another: why this and not that."""

    token: str | int
    other: str | int


@dataclass(frozen=True, slots=True)
class Feature:
    """The pre-activation of a feature that is active at `position` (default: the graph's)."""

    layer: int
    feature: int
    position: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """The product of a residual site with a vector of the model's width."""

    site: Site
    vector: Float[Tensor, " d"]
    position: int | None = None
    label: str = "direction"


Target = TopLogits | Logit | LogitDifference | Feature | Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The rows that a graph starts from, with what is shown of each.

    Attributes:
        targets: their rows.
        weights: how much each counts; the sum is at most 1.
        index: token id (of a difference, the first), feature number, or for a direction 0.
        labels: text shown.
        records: what each is, JSON-able.
    """

    targets: Targets
    weights: Float[Tensor, " R"]
    index: list[int]
    labels: list[str]
    records: list[dict[str, Any]] = field(default_factory=list)


def explained(linear: LinearModel, wanted: Sequence[Target], position: int) -> Explained:
    """Resolve what a user wants explained at a position.

    Raises:
        ConfigError: nothing is wanted, or a site, position or vector does not exist.
        PromptError: a token is not in the vocabulary, or a feature is not active there.
    """
    if not wanted:
        raise ConfigError("there is nothing to explain; give at least one target")
    parts: list[Explained] = []
    for target in wanted:
        match target:
            case TopLogits():
                parts.append(_top_logits(linear, target, position))
            case Logit() | LogitDifference():
                parts.append(_logit(linear, target, position))
            case Feature():
                parts.append(_feature(linear, target, position))
            case Direction():
                parts.append(_direction(linear, target, position))
    share = 1.0 / len(parts)
    return Explained(
        targets=concatenate([part.targets for part in parts]),
        weights=torch.cat([part.weights.cpu() * share for part in parts]),
        index=[number for part in parts for number in part.index],
        labels=[label for part in parts for label in part.labels],
        records=[record for part in parts for record in part.records],
    )


def token_id(model: LanguageModel, token: str | int) -> int:
    """The id of a token given as text (tried as it is, then after a space) or as its id.

    Raises:
        PromptError: no token of the vocabulary is that text, or the id is out of range.
    """
    if isinstance(token, int):
        if not 0 <= token < model.vocab_size:
            raise PromptError(
                f"token {token} is not in the vocabulary; give an id from 0 to "
                f"{model.vocab_size - 1}"
            )
        return token
    if model.tokenizer is None:
        raise PromptError(f"{model.name} has no tokenizer to look up {token!r}; give token ids")
    unknown = model.tokenizer.unk_token_id
    for text in (token, f" {token}"):
        ids = model.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) == 1 and ids[0] != unknown:
            return int(ids[0])
    raise PromptError(
        f"{token!r} is not one token of {model.name}; give a text that is one token, or an id"
    )


def _top_logits(linear: LinearModel, target: TopLogits, position: int) -> Explained:
    run = linear.local.run
    sorted_p, order = run.probabilities(position).sort(descending=True)
    before = sorted_p.cumsum(0) - sorted_p
    count = min(target.max_logits, int((before < target.probability_mass).sum()))
    tokens = order[:count]
    texts = run.model.token_texts(tokens)
    return Explained(
        targets=_logit_targets(linear, tokens, position),
        weights=sorted_p[:count],
        index=tokens.tolist(),
        labels=texts,
        records=[{"kind": "logit", "token": int(token)} for token in tokens],
    )


def _logit(linear: LinearModel, target: Logit | LogitDifference, position: int) -> Explained:
    model = linear.local.run.model
    names = [target.token] if isinstance(target, Logit) else [target.token, target.other]
    tokens = torch.tensor([token_id(model, name) for name in names])
    targets = _logit_targets(linear, tokens, position)
    texts = model.token_texts(tokens)
    record: dict[str, Any] = {"kind": "logit", "token": int(tokens[0])}
    if len(names) == 2:
        if tokens[0] == tokens[1]:
            raise ConfigError(
                f"the logit difference is between {texts[0]!r} and itself; give two tokens"
            )
        targets = difference(targets)
        record = {"kind": "difference", "token": int(tokens[0]), "other": int(tokens[1])}
    return Explained(
        targets=targets,
        weights=targets.value.new_ones(1),
        index=[int(tokens[0])],
        labels=[" minus ".join(texts)],
        records=[record],
    )


def _logit_targets(linear: LinearModel, tokens: Tensor, position: int) -> Targets:
    """Logits of some tokens less the mean logit."""
    run = linear.local.run
    unembedding, bias = run.model.unembedding(), run.model.unembedding_bias()
    directions = unembedding[tokens] - unembedding.mean(dim=0)
    logits = run.logits[position]
    return unembedding_targets(
        linear,
        directions,
        directions.new_zeros(len(tokens)) if bias is None else bias[tokens] - bias.mean(),
        position,
        value=logits[tokens] - logits.mean(),
    )


def _feature(linear: LinearModel, target: Feature, default: int) -> Explained:
    position = _position(linear, target.position, default)
    layers = linear.local.layers
    if not 0 <= target.layer < len(layers):
        raise ConfigError(f"there is no layer {target.layer}; use 0 to {len(layers) - 1}")
    active = layers[target.layer].active
    found = (active.positions == position) & (active.features == target.feature)
    if not found.any():
        here = active.features[active.positions == position].tolist()
        raise PromptError(
            f"feature {target.feature} of layer {target.layer} is not active at position "
            f"{position}; active there: {', '.join(map(str, here[:12])) or 'none'}"
        )
    chosen = found.nonzero().squeeze(1)
    return Explained(
        targets=feature_targets(linear, target.layer, chosen),
        weights=torch.ones(1, dtype=active.activations.dtype),
        index=[target.feature],
        labels=[f"feature {target.layer}.{target.feature}"],
        records=[
            {
                "kind": "feature",
                "layer": target.layer,
                "feature": target.feature,
                "position": position,
            }
        ],
    )


def _direction(linear: LinearModel, target: Direction, default: int) -> Explained:
    position = _position(linear, target.position, default)
    width, site = linear.tokens.shape[1], target.site
    if site.kind not in ("resid_pre", "resid_mid", "resid_post") or site.layer >= len(
        linear.blocks
    ):
        raise ConfigError(
            f"a direction cannot be read at {site}; use resid_pre, resid_mid or resid_post of "
            f"layer 0 to {len(linear.blocks) - 1}"
        )
    if target.vector.shape != (width,) or not math.isfinite(float(target.vector.sum())):
        raise ConfigError(
            f"the direction at {site} has shape {tuple(target.vector.shape)} or is not finite; "
            f"give {width} finite numbers"
        )
    vector = target.vector.to(linear.tokens)[None]
    return Explained(
        targets=Targets(
            depth=torch.tensor([linear.depth(site)]),
            position=torch.tensor([position]),
            vectors=vector,
            constant=vector.new_zeros(1),
            value=vector @ linear.local.run.residual(site)[position],
        ),
        weights=vector.new_ones(1),
        index=[0],
        labels=[target.label],
        records=[{"kind": "direction", "site": str(site), "position": position}],
    )


def _position(linear: LinearModel, position: int | None, default: int) -> int:
    chosen = default if position is None else position
    if not 0 <= chosen < len(linear.tokens):
        raise ConfigError(
            f"position {chosen} is not in the prompt; use 0 to {len(linear.tokens) - 1}"
        )
    return chosen
