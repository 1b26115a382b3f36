"""Conditional steering (CAST, Lee et al. 2024): a vector that acts only on prompts of one kind.

The condition is read row by row: the cosine of the prompt's mean hidden state with a condition
vector. Layer, threshold and side are those with the best F1 on prompts that the vector was not
made of. Where the condition fails nothing is edited.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.types import AnySite
from pellucid.interventions.spec import Gate, Intervention
from pellucid.interventions.steering.reading import Prompts, values_at
from pellucid.interventions.steering.vector import Steering, as_site
from pellucid.interventions.where import Where, window
from pellucid.models.model import LanguageModel

_FROM_THE_LAST = window(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition:
    """A gate, and how well it tells the two kinds of prompt apart.

    Attributes:
        gate: opens on prompts of the kind that is to be steered.
        f1: on the prompts that chose layer, threshold and side (so it flatters a little).
        precision: share of the prompts it opens on that are of the kind.
        recall: share of the prompts of the kind that it opens on.
        tried: best F1 by site.
    """

    gate: Gate
    f1: float
    precision: float
    recall: float
    tried: dict[str, float]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConditionalSteering(Steering):
    """Steering that a gate opens, from the last prompt token on, for each row by itself.

    Attributes:
        steering: what acts; its own where-clauses are replaced.
        condition: when.
        where: the tokens that are steered.
    """

    steering: Steering
    condition: Condition
    where: Where = _FROM_THE_LAST

    def interventions(
        self, strength: float = 1.0, *, rows: Sequence[int] | None = None
    ) -> list[Intervention]:
        """Those of `steering` behind the gate."""
        return [
            replace(each, where=self.where, gate=self.condition.gate)
            for each in self.steering.interventions(strength, rows=rows)
        ]


def fit_condition(
    model: LanguageModel,
    when: Prompts,
    unless: Prompts,
    sites: Sequence[AnySite | str],
) -> Condition:
    """Find the site, direction and threshold that tell two kinds of prompt apart.

    Directions are differences of means (of the prompts' mean hidden states) over the first half
    of the prompts; site, threshold and side are chosen on the second half.

    Args:
        model: the model.
        when: prompts to be steered, at least two.
        unless: prompts to be left alone, at least two; hard ones make a better gate.
        sites: where a condition may be read; all before the steered site.

    Raises:
        InterventionError: fewer than two prompts on a side, no sites, or no difference.
        PromptError: a prompt cannot be read.
        SiteError: the model has no such site.
    """
    if min(len(when), len(unless)) < 2 or not len(sites):
        raise InterventionError(
            f"there are {len(when)} prompts to steer, {len(unless)} to leave alone and "
            f"{len(sites)} sites; give at least 2, 2 and 1"
        )
    places = [as_site(each) for each in sites]
    high, low = (values_at(model, side, places, "mean") for side in (when, unless))
    truth = torch.cat(
        [
            torch.ones(len(when) - _half(when), dtype=torch.bool),
            torch.zeros(len(unless) - _half(unless), dtype=torch.bool),
        ]
    )
    best: Condition | None = None
    tried: dict[str, float] = {}
    for site in places:
        vector = high[site][: _half(when)].mean(0) - low[site][: _half(unless)].mean(0)
        judged = torch.cat([high[site][_half(when) :], low[site][_half(unless) :]])
        readings = torch.cosine_similarity(judged, vector[None], dim=1).cpu()
        if not bool(vector.any()):
            continue
        threshold, above = best_threshold(readings, truth)
        precision, recall, f1 = _scores((readings > threshold) == above, truth)
        tried[str(site)] = f1
        if best is None or f1 > best.f1:
            gate = Gate(
                site=site,
                vector=vector.cpu(),
                threshold=threshold,
                measure="cosine",
                over=Where(prompt=True),
                reduce="mean",
                above=above,
            )
            best = Condition(gate=gate, f1=f1, precision=precision, recall=recall, tried=tried)
    if best is None:
        raise InterventionError(
            "the two kinds of prompt do not differ at any of the sites; give other prompts or sites"
        )
    return best


def best_threshold(readings: Float[Tensor, " N"], truth: Bool[Tensor, " N"]) -> tuple[float, bool]:
    """The threshold and the side (above or not) with the best F1.

    Candidates are the middles between neighbouring readings; of equally good ones the middle of
    the widest gap is taken.

    Args:
        readings: one a prompt, not all equal.
        truth: which prompts are to be steered.
    """
    levels = readings.unique()
    middles, gaps = (levels[1:] + levels[:-1]) / 2, levels[1:] - levels[:-1]
    choices = [
        (_scores((readings > middle) == above, truth)[2], gap, middle, above)
        for middle, gap in zip(middles.tolist(), gaps.tolist(), strict=True)
        for above in (True, False)
    ]
    if not choices:
        return float(levels[0]) - 1.0, True  # nothing to tell apart: open on all
    _, _, threshold, side = max(choices, key=lambda each: each[:2])
    return threshold, side


def _scores(opened: Bool[Tensor, " N"], truth: Bool[Tensor, " N"]) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    right = float((opened & truth).sum())
    precision = right / max(float(opened.sum()), 1.0)
    recall = right / max(float(truth.sum()), 1.0)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return precision, recall, f1


def _half(prompts: Prompts) -> int:
    return (len(prompts) + 1) // 2
