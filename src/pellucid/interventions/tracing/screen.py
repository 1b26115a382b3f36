"""Screening: estimate the effect of every patch by gradients, then patch the best for real.

    atp     effect of a patch ~ (source - base) . dm/dvalue     (Nanda 2023; Syed et al. 2023)
    atp*    queries and keys go through the exact softmax, and candidates are ranked by
            mean over layers of |estimate without gradients through that layer|
            (Kramar, Lieberum, Shah, Nanda 2024)
    eap-ig  the gradient averaged over embeddings between the two prompts (Hanna, Pezzelle,
            Belinkov 2024)

An estimate is never reported alone: the candidates are patched exactly, and so is a random sample
of the rest, which says what the screen may have missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from pellucid.core.errors import ConfigError
from pellucid.core.places import HeadSite
from pellucid.interventions.tracing.contrast import Contrast, Direction
from pellucid.interventions.tracing.gradients import (
    attention_run,
    dropping,
    interpolating,
    point_gradients,
    softmax_effects,
)
from pellucid.interventions.tracing.patches import patched_logits
from pellucid.interventions.tracing.result import SweepResult
from pellucid.interventions.tracing.slots import NeuronSite, TracingSite, slot
from pellucid.interventions.tracing.sweep import Grid, absolute_positions, named, places_of
from pellucid.models.model import LanguageModel
from pellucid.models.resume import RecordedRun, record
from pellucid.models.taps import TapPoint

ScreenMethod = Literal["atp", "atp*", "eap-ig"]
IG_STEPS = 8
TOP, SAMPLE = 20, 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screen:
    """Estimates of every patch, and exact effects of some.

    Attributes:
        estimate: effects to first order, as a sweep's result.
        score: what candidates were ranked by.
        exact: `[places, positions]`, measured effects; NaN where the patch was not run.
        top: cells (row, column) of the candidates, the best first.
        sample: cells drawn at random from the rest.
        agreement: rank correlation of score and |exact effect| over the candidates and the sample;
            None where it is not defined.
        missed: share of the sample whose exact effect is larger than the median candidate's.
        largest_missed: the largest |exact effect| in the sample; None without one.
    """

    estimate: SweepResult
    score: Float64[np.ndarray, "R P"]
    exact: Float64[np.ndarray, "R P"]
    top: list[tuple[int, int]]
    sample: list[tuple[int, int]]
    agreement: float | None
    missed: float | None
    largest_missed: float | None

    def to_json(self) -> dict[str, Any]:
        """Estimates, exact effects and the check of the screen, JSON-able."""
        return self.estimate.to_json() | {
            "verified": {
                "top": [self.cell(*cell) for cell in self.top],
                "random_rest": [self.cell(*cell) for cell in self.sample],
                "rank_agreement": self.agreement,
                "missed_share": self.missed,
                "largest_missed": self.largest_missed,
            }
        }

    def receipt(self) -> dict[str, Any]:
        """How many tokens were edited where, and by how much: the patches that were run."""
        run = np.zeros(self.score.shape, bool)
        for cell in (*self.top, *self.sample):
            run[cell] = True
        change = np.where(run, self.estimate.relative_change, 0.0)
        return replace(self.estimate, relative_change=change).receipt()

    def cell(self, row: int, column: int) -> dict[str, Any]:
        """One patch: estimated and exact."""
        return {
            "site": self.estimate.places[row],
            "position": self.estimate.positions[column],
            "token": self.estimate.tokens[column],
            "estimate": float(self.estimate.effect[row, column]),
            "score": float(self.score[row, column]),
            "exact": float(self.exact[row, column]),
        }


def screen(
    model: LanguageModel,
    pair: Contrast,
    site: str | Sequence[str] = "z",
    *,
    method: ScreenMethod = "atp*",
    direction: Direction = "denoise",
    top: int = TOP,
    sample: int = SAMPLE,
    steps: int = IG_STEPS,
    seed: int = 0,
) -> Screen:
    """Estimate all patches, run the best ones and a random sample of the rest for real.

    Args:
        model: to patch.
        pair: the two prompts.
        site: as in `patching_sweep`, and `neuron` for every neuron apart.
        method: `atp`, `atp*` or `eap-ig`.
        direction: `denoise` or `noise`.
        top: how many candidates are patched for real.
        sample: how many of the rest.
        steps: of the integral of `eap-ig`.
        seed: of the sample.

    Raises:
        ConfigError: another method or direction.
        SiteError: the model has no such place.
    """
    if method not in get_args(ScreenMethod):
        raise ConfigError(f"method is {method!r}; use {', '.join(get_args(ScreenMethod))}")
    places = _neurons(model) if site == "neuron" else places_of(model, site)
    grid = Grid(
        slots=[slot(model, place) for place in places],
        positions=absolute_positions(len(pair.clean), None),
    )
    points = list(dict.fromkeys(each.point for each in grid.slots))
    base, source = record(model, torch.stack(list(pair.ends(direction))), keep=points)
    old, new = grid.values(base), grid.values(source)
    estimator = _Estimator(model=model, pair=pair, base=base, source=source, steps=steps)
    raw, score = estimator.estimate(places, grid, old, new, method)
    gap = pair.corrupt_value - pair.clean_value
    gap = gap if direction == "noise" else -gap
    changes = grid.relative(old, new)
    effect, score = raw / gap, np.where(changes > 0, score / abs(gap), 0.0)
    cells, drawn = choose(score, changes > 0, top, sample, seed)
    wanted = np.zeros(score.shape, bool)
    for cell in (*cells, *drawn):
        wanted[cell] = True
    exact = np.where(changes > 0, np.nan, 0.0)
    patched = patched_logits(base, grid.copies(new, wanted))
    exact[wanted] = pair.effects(patched.logits, direction).double().cpu().numpy()
    share, largest = missed(exact, cells, drawn)
    texts = pair.corrupt_tokens, pair.clean_tokens
    own_texts, donor_texts = texts if direction == "denoise" else texts[::-1]
    result = SweepResult(
        title=f"{named(places)}: {direction}, estimated by {method}, {pair.metric_name}",
        places=[str(place) for place in places],
        positions=grid.positions,
        tokens=own_texts,
        donor_tokens=donor_texts,
        effect=effect,
        noise=None,
        same=None,
        relative_change=changes,
        settings={
            "method": method,
            "site": site if isinstance(site, str) else list(site),
            "direction": direction,
            "metric": pair.metric_name,
            "answer": pair.answer_text,
            "other": pair.other_text,
            "clean_value": pair.clean_value,
            "corrupt_value": pair.corrupt_value,
            "seed": seed,
        },
        note=patched.note,
    )
    return Screen(
        estimate=result,
        score=score,
        exact=exact,
        top=cells,
        sample=drawn,
        agreement=rank_agreement(score[wanted], np.abs(exact[wanted])),
        missed=share,
        largest_missed=largest,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimator:
    model: LanguageModel
    pair: Contrast
    base: RecordedRun
    source: RecordedRun
    steps: int

    def estimate(
        self,
        places: Sequence[TracingSite],
        grid: Grid,
        old: list[Tensor],
        new: list[Tensor],
        method: ScreenMethod,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Estimates in units of the metric, and what to rank by."""
        exact_softmax = method == "atp*"
        points = [each.point for each in grid.slots]
        turned = {
            place.layer: slot(self.model, HeadSite("z", place.layer)).point
            for place in places
            if exact_softmax and isinstance(place, HeadSite) and place.kind in "qk"
        }
        points += list(turned.values())
        ends = self.base.ids, self.source.ids
        runs = {
            layer: tuple(attention_run(self.model, ids, layer) for ids in ends) for layer in turned
        }

        def effects(gradients: dict[TapPoint, Tensor]) -> np.ndarray:
            rows = []
            for number, place in enumerate(places):
                if place.layer in turned and isinstance(place, HeadSite) and place.kind in "qk":
                    z = gradients[turned[place.layer]]
                    old_run, new_run = runs[place.layer]
                    found = softmax_effects(place, old_run, new_run, z)
                    rows.append(found[:, grid.positions])
                    continue
                each = grid.slots[number]
                own = each.read(gradients[each.point])[:, grid.positions]
                rows.append((own * (new[number] - old[number])).sum(-1))
            return torch.stack(rows, dim=1).double().cpu().numpy()

        estimate = effects(self._gradients(points, method)).mean(axis=0)
        if method != "atp*":
            return estimate, np.abs(estimate)
        layers = self.model.n_layers
        dropped = point_gradients(
            self.model,
            self.base.ids,
            points,
            self.pair.metric,
            rows=layers,
            after=dropping(self.model),
        )
        return estimate, np.abs(effects(dropped)).sum(axis=0) / max(1, layers - 1)

    def _gradients(self, points: list[TapPoint], method: ScreenMethod) -> dict[TapPoint, Tensor]:
        if method != "eap-ig":
            return point_gradients(self.model, self.base.ids, points, self.pair.metric)
        between = interpolating(
            self.model, self.base.residuals[0], self.source.residuals[0], self.steps
        )
        return point_gradients(
            self.model, self.base.ids, points, self.pair.metric, rows=self.steps, before=between
        )


def _neurons(model: LanguageModel) -> list[TracingSite]:
    return [
        NeuronSite(layer, neuron)
        for layer in range(model.n_layers)
        for neuron in range(model.block(layer).mlp.w_out.shape[0])
    ]


def choose(
    score: Float64[np.ndarray, "R P"],
    possible: Bool[np.ndarray, "R P"],
    top: int,
    sample: int,
    seed: int,
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The best cells, and a random sample of the others whose value changes at all."""
    order = np.argsort(-np.where(possible, score, -1.0), axis=None, kind="stable")
    order = order[: int(possible.sum())]
    rest = np.random.default_rng(seed).permutation(order[top:])[:sample]

    def cells(flat: np.ndarray) -> list[tuple[int, int]]:
        rows, columns = np.unravel_index(flat, score.shape)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))

    return cells(order[:top]), cells(rest)


def rank_agreement(
    score: Float64[np.ndarray, " n"], exact: Float64[np.ndarray, " n"]
) -> float | None:
    """Rank correlation, None where one of them does not vary."""
    from scipy.stats import spearmanr

    if len(score) < 3 or np.ptp(score) == 0 or np.ptp(exact) == 0:
        return None
    return float(spearmanr(score, exact).statistic)


def missed(
    exact: Float64[np.ndarray, "R P"], top: list[tuple[int, int]], sample: list[tuple[int, int]]
) -> tuple[float | None, float | None]:
    """How often and by how much the sample beats the candidates.

    Returns:
        The share of the sample whose |effect| exceeds the median candidate's, and the largest
        |effect| in the sample; None without a sample.
    """
    if not sample or not top:
        return None, None
    found = np.abs([exact[cell] for cell in top])
    rest = np.abs([exact[cell] for cell in sample])
    return float((rest > np.median(found)).mean()), float(rest.max())
