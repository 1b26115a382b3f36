"""Directional ablation: a direction taken out of all that is written to the residual stream.

Arditi et al. 2024 (refusal): h <- h - r r^T h at every block's input and every attention and MLP
output. The direction is the difference of means at one layer and one position after the
instruction, chosen on held-out prompts: of those that change predictions on harmless text by at
most .1 nats, the one whose ablation leaves the least of the behaviour.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.types import Site, SiteKind
from pellucid.interventions.operations import ProjectOut
from pellucid.interventions.run import run
from pellucid.interventions.spec import Intervention
from pellucid.interventions.steering.reading import (
    ROWS_AT_ONCE,
    Prompts,
    values_at,
)
from pellucid.interventions.steering.vector import Steering, SteeringVector, provenance
from pellucid.interventions.where import EVERYWHERE, Where
from pellucid.models.model import LanguageModel

_WRITES: tuple[SiteKind, ...] = ("resid_pre", "attn_out", "mlp_out")


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DirectionalAblation(Steering):
    """Projects a direction out everywhere in the model.

    Attributes:
        vector: the direction; its own site and length play no part.
        n_layers: how many blocks the model has.
        where: the tokens.
    """

    vector: SteeringVector
    n_layers: int
    where: Where = EVERYWHERE

    def interventions(
        self, strength: float = 1.0, *, rows: Sequence[int] | None = None
    ) -> list[Intervention]:
        """One `ProjectOut` at every block's input and every attention and MLP output.

        Raises:
            InterventionError: a strength other than 1: a projection has none.
        """
        if strength != 1.0:
            raise InterventionError(
                f"directional ablation has no strength, and {strength} was asked for; use 1"
            )
        op = ProjectOut(self.vector.vector[None])
        chosen = None if rows is None else tuple(rows)
        return [
            Intervention(Site(kind, layer), op, self.where, chosen)
            for layer in range(self.n_layers)
            for kind in _WRITES
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A direction that was tried.

    Attributes:
        layer: of the block at whose input the direction was read.
        position: of the token it was read at, from the prompt's end.
        behaviour: mean log odds of the behaviour's tokens when it is ablated.
        induced: the same on harmless prompts when it is added.
        kl: nats a token by which ablation changes predictions on harmless prompts.
        eligible: whether kl is within the limit.
    """

    layer: int
    position: int
    behaviour: float
    induced: float
    kl: float
    eligible: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DirectionChoice:
    """The direction chosen, and all that were tried.

    Attributes:
        ablation: of the chosen direction; `ablation.vector` is the direction.
        candidates: in the order of layers, then positions.
        before: mean log odds of the behaviour's tokens without any edit.
    """

    ablation: DirectionalAblation
    candidates: tuple[Candidate, ...]
    before: float


def choose_direction(
    model: LanguageModel,
    with_behaviour: Prompts,
    without: Prompts,
    behaviour_tokens: Sequence[int],
    *,
    positions: Sequence[int] = (-1,),
    dropped: float = 0.2,
    kl_limit: float = 0.1,
) -> DirectionChoice:
    """Find the direction whose ablation takes a behaviour away and leaves the rest alone.

    Directions are differences of means over the first half of the prompts and are judged on the
    second half.

    Args:
        model: a model of a known family.
        with_behaviour: prompts that show it (harmful requests, for refusal).
        without: prompts that do not.
        behaviour_tokens: ids that begin it (`sorry`, `i`), read after the prompt.
        positions: tokens to read directions at, from the prompt's end.
        dropped: share of the layers left out at the end; at least one is.
        kl_limit: the most that ablation may change predictions on `without`, in nats a token.

    Raises:
        InterventionError: fewer than two prompts on a side, no behaviour tokens, or no direction
            within the limit.
        PromptError: a prompt cannot be read.
        SiteError: the model's family is not known.
    """
    if min(len(with_behaviour), len(without)) < 2 or not len(behaviour_tokens):
        raise InterventionError(
            f"there are {len(with_behaviour)} prompts with the behaviour, {len(without)} without "
            f"and {len(behaviour_tokens)} tokens that begin it; give at least 2, 2 and 1"
        )
    train, judge = _halves(with_behaviour), _halves(without)
    plain = _logits(model, judge[1], [])
    before = _odds(_logits(model, train[1], []), behaviour_tokens)
    sites = [Site("resid_pre", n) for n in range(max(1, int(model.n_layers * (1 - dropped))))]
    tried: list[tuple[Candidate, SteeringVector]] = []
    record = provenance(model, with_behaviour, without)
    means = {
        place: [values_at(model, part, sites, place) for part in (train[0], judge[0])]
        for place in positions
    }
    for site in sites:
        for place, (high, low) in means.items():
            difference = high[site].mean(0) - low[site].mean(0)
            if not bool(difference.any()):
                continue  # the two sides agree here, as at the first block's input
            vector = SteeringVector(
                site=site,
                vector=difference,
                method="ablation",
                provenance=record | {"position": place},
            )
            candidate = _judge(model, vector, place, train[1], judge[1], behaviour_tokens, plain)
            tried.append((replace(candidate, eligible=candidate.kl <= kl_limit), vector))
    allowed = [each for each in tried if each[0].eligible]
    if not allowed:
        least = min((each[0].kl for each in tried), default=float("nan"))
        raise InterventionError(
            f"none of {len(tried)} directions keeps predictions on the other prompts within "
            f"{kl_limit} nats (the least is {least:.3f}); raise kl_limit or give more prompts"
        )
    best = min(allowed, key=lambda each: each[0].behaviour)[1]
    return DirectionChoice(
        ablation=DirectionalAblation(vector=best, n_layers=model.n_layers),
        candidates=tuple(each[0] for each in tried),
        before=float(before.mean()),
    )


def _judge(
    model: LanguageModel,
    vector: SteeringVector,
    place: int,
    behaving: Prompts,
    others: Prompts,
    tokens: Sequence[int],
    plain: Float[Tensor, "N V"],
) -> Candidate:
    """What ablating and adding a direction does on prompts it was not made of."""
    ablation = DirectionalAblation(vector=vector, n_layers=model.n_layers).interventions()
    ablated = _logits(model, others, ablation).log_softmax(-1)
    expected = plain.log_softmax(-1)
    kl = (expected.exp() * (expected - ablated)).sum(-1).mean()
    assert isinstance(vector.site, Site)
    return Candidate(
        layer=vector.site.layer,
        position=place,
        behaviour=float(_odds(_logits(model, behaving, ablation), tokens).mean()),
        induced=float(_odds(_logits(model, others, vector.interventions()), tokens).mean()),
        kl=float(kl),
        eligible=True,
    )


@torch.no_grad()
def _logits(
    model: LanguageModel, prompts: Prompts, edits: Sequence[Intervention]
) -> Float[Tensor, "N V"]:
    """Logits after the last token of each prompt."""
    parts = [
        run(model, prompts[start : start + ROWS_AT_ONCE], edits).last.float()
        for start in range(0, len(prompts), ROWS_AT_ONCE)
    ]
    return torch.cat(parts)


def _odds(logits: Float[Tensor, "N V"], tokens: Sequence[int]) -> Float[Tensor, " N"]:
    """Log odds that the next token is one of some tokens."""
    inside = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    inside[list(tokens)] = True
    rest = logits[:, ~inside].logsumexp(-1)
    return logits[:, inside].logsumexp(-1) - rest


def _halves(prompts: Prompts) -> tuple[Prompts, Prompts]:
    middle = (len(prompts) + 1) // 2
    return prompts[:middle], prompts[middle:]
