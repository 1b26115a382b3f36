"""Causal tracing by noise: blur the subject, restore one window at a time (Meng et al. 2022, ROME).

Gaussian noise on the subject's embeddings, of 3 standard deviations of the embedding matrix, takes
the answer away. Each copy of the blurred run gets back the clean values of one token in a window of
layers.

    effect = mean of m(restored) - m(blurred) / mean of m(clean) - m(blurred)

with means over draws of the noise (a ratio of means, so that no draw that happens to change little
dominates), and an interval over the draws.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.types import Site
from pellucid.interventions.prompts import find_span
from pellucid.interventions.tracing.contrast import Contrast
from pellucid.interventions.tracing.patches import Put, patched_logits
from pellucid.interventions.tracing.result import SweepResult
from pellucid.interventions.tracing.slots import slot
from pellucid.interventions.tracing.sweep import (
    Grid,
    OnProgress,
    absolute_positions,
    named,
    noised,
    places_of,
)
from pellucid.models.model import LanguageModel
from pellucid.models.resume import RecordedRun, record
from pellucid.models.taps import TapCall

SIGMAS = 3.0
DRAWS = 10
_LEAST_GAP = 1e-3
_BOOTSTRAPS = 1000


def noise_tracing(
    model: LanguageModel,
    pair: Contrast,
    subject: str | Sequence[int],
    site: str = "resid_post",
    *,
    window: int = 1,
    sigmas: float = SIGMAS,
    draws: int = DRAWS,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> SweepResult:
    """Blur the subject of the clean prompt and restore (token, window of layers) one at a time.

    The control restores noise instead: random changes of the blurred values, as large as the
    restoration.

    Args:
        model: to trace.
        pair: its clean prompt and its metric; the corrupt prompt only names the other answer.
        subject: text or positions whose embeddings get noise.
        site: `resid_post`, `attn_out` or `mlp_out`, as a rule.
        window: layers that are restored together, around each; Meng et al. use 10 of 48 for
            attention and MLPs, 1 for residuals.
        sigmas: size of the noise, in standard deviations of the embedding matrix.
        draws: of the noise.
        seed: of the noise.
        on_progress: called with how many draws are done, and of how many.

    Raises:
        InterventionError: the subject does not occur, or the noise does not change the metric.
        SiteError: the model has no such place.
    """
    where = subject_positions(model, pair.clean, subject)
    places = places_of(model, site)
    positions = absolute_positions(len(pair.clean), None)
    grid = Grid(slots=[slot(model, place) for place in places], positions=positions)
    clean, *blurred = _blur(model, pair, grid, where, sigmas=sigmas, draws=draws, seed=seed)
    gains, changes = [], []
    gaps = _gaps(pair, blurred)
    for draw, run in enumerate(blurred):
        old, new = grid.values(run), grid.values(clean)
        control = noised(old, new, seed + 1 + draw)
        changes.append(grid.relative(old, new))
        copies = [c for values in (new, control) for c in _windows(grid, values, window)]
        metric = pair.metric(patched_logits(run, copies).logits).double().cpu().numpy()
        shape = 2, len(places), len(positions)
        gains.append((metric - (pair.clean_value - gaps[draw])).reshape(shape))
        if on_progress is not None:
            on_progress(draw + 1, draws)
    gains_DCRP = np.array(gains)
    restored, random = gains_DCRP.mean(axis=0) / gaps.mean()
    low, high = _interval(gains_DCRP[:, 0], gaps, seed)
    return SweepResult(
        title=f"{named(places)} restored after noise on {[pair.clean_tokens[p] for p in where]}",
        places=[str(place) for place in places],
        positions=positions,
        tokens=pair.clean_tokens,
        donor_tokens=pair.clean_tokens,
        effect=restored,
        low=low,
        high=high,
        noise=random,
        same=None,
        relative_change=np.mean(changes, axis=0),
        settings={
            "method": "rome",
            "site": site,
            "subject": where,
            "window": window,
            "sigmas": sigmas,
            "draws": draws,
            "metric": pair.metric_name,
            "answer": pair.answer_text,
            "clean_value": pair.clean_value,
            "seed": seed,
        },
    )


def subject_positions(
    model: LanguageModel, ids: Int[Tensor, " S"], subject: str | Sequence[int]
) -> list[int]:
    """The positions of a subject given as text or as positions.

    Raises:
        InterventionError: it does not occur in the prompt.
    """
    if not isinstance(subject, str):
        return absolute_positions(len(ids), subject)
    spans = find_span(model, ids.tolist(), subject)
    if not spans:
        raise InterventionError(
            f"the subject {subject!r} does not occur in the clean prompt; copy it as it is there"
        )
    return list(range(*spans[-1]))


def _blur(
    model: LanguageModel,
    pair: Contrast,
    grid: Grid,
    where: list[int],
    *,
    sigmas: float,
    draws: int,
    seed: int,
) -> list[RecordedRun]:
    """The clean run, and one with noise for every draw."""
    everything = torch.arange(model.vocab_size, device=model.device)
    size = sigmas * float(model.token_embedding(everything).float().std())
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, len(where), model.d_model, generator=generator).to(model.device)

    def blur(value: Tensor, _: TapCall) -> Tensor:
        blurred = value.clone()
        blurred[1:, where] += size * noise.to(value.dtype)
        return blurred

    ids = pair.clean.expand(draws + 1, -1)
    points = list(dict.fromkeys(each.point for each in grid.slots))
    return record(model, ids, keep=points, edits=[(Site("embed"), blur)])


def _windows(grid: Grid, values: list[Tensor], window: int) -> list[list[Put]]:
    """One copy a place and token; each puts the values of the places around it."""
    copies = []
    for row in range(len(grid.slots)):
        first = max(0, row - (window - 1) // 2)
        rows = range(first, min(len(grid.slots), row + window // 2 + 1))
        for column, position in enumerate(grid.positions):
            copies.append([Put(grid.slots[r], position, values[r][column]) for r in rows])
    return copies


def _gaps(pair: Contrast, blurred: Sequence[RecordedRun]) -> np.ndarray:
    """What the noise of every draw takes from the metric."""
    logits = torch.stack([run.logits for run in blurred])
    gaps: np.ndarray = pair.clean_value - pair.metric(logits).double().cpu().numpy()
    if not abs(gaps.mean()) > _LEAST_GAP:
        raise InterventionError(
            f"noise on the subject leaves the metric at {pair.clean_value - gaps.mean():.4g} "
            f"(clean: {pair.clean_value:.4g}), so there is nothing to restore; use another subject "
            "or more sigmas"
        )
    return gaps


def _interval(
    gains_DRP: np.ndarray, gaps_D: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """95% bootstrap interval over draws, cell by cell."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(gaps_D), size=(_BOOTSTRAPS, len(gaps_D)))
    shares = np.stack([gains_DRP[each].mean(axis=0) / gaps_D[each].mean() for each in draws])
    low, high = np.quantile(shares, [0.025, 0.975], axis=0)
    return low, high
