"""What steering does as its strength grows, beside vectors of the same length at random."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from pellucid.core.errors import InterventionError
from pellucid.graphs.resampling import interval
from pellucid.interventions.steering.continuations import continuation_log_probabilities
from pellucid.interventions.steering.reading import Prompts
from pellucid.interventions.steering.strength import (
    cross_entropies,
    median_norm,
    random_like,
    rho_of,
    strength_for,
)
from pellucid.interventions.steering.vector import Steering, SteeringVector
from pellucid.interventions.where import EVERYWHERE
from pellucid.models.model import LanguageModel

_BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One strength of one arm.

    Attributes:
        arm: `vector`, or `random` for the mean of several random vectors of its length.
        strength: factor of the vector.
        rho: strength times its length over the median length of what it is added to.
        effect: mean change of the targets' log-probability, nats a token.
        low: lower end of the 95% interval: bootstrap over prompts for the vector, Student's t
            over seeds for random vectors; None where there are fewer than two.
        high: its upper end.
        ce_change: nats a token by which cross-entropy on neutral text rises when all of it is
            steered.
    """

    arm: str
    strength: float
    rho: float
    effect: float
    low: float | None
    high: float | None
    ce_change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Steering by strength.

    Attributes:
        rows: the vector's and the random arm's, by strength.
        norm: median length of the unedited values that vectors are added to.
        log_probability: mean log-probability of the targets without steering, nats a token.
        neutral_ce: cross-entropy of the neutral text without steering.
        seeds: of the random vectors.
    """

    rows: tuple[SweepRow, ...]
    norm: float
    log_probability: float
    neutral_ce: float
    seeds: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """The sweep as a JSON-able record."""
        return asdict(self)


def sweep(
    model: LanguageModel,
    vector: SteeringVector,
    rhos: Sequence[float],
    *,
    prompts: Prompts,
    targets: Prompts,
    neutral: Prompts,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    act: Callable[[SteeringVector], Steering] = lambda vector: vector,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Steer with a vector, and with random vectors of its length, at several strengths.

    Args:
        model: the model.
        vector: steers where its where-clause says; neutral text it steers at every token.
        rhos: relative strengths, not 0.
        prompts: those whose continuation is steered.
        targets: continuations that steering should make likelier.
        neutral: text that steering should leave alone.
        seeds: of the random vectors, at least one.
        act: makes steering of a vector, such as a conditional one; the random arm gets it too.
        on_progress: called with strengths done and their number.

    Raises:
        InterventionError: no strength, one that is 0 or not finite, no seed, no prompt, target or
            text, or an edit that selects nothing.
        PromptError: a text cannot be read.
        SiteError: the model has no such site.
    """
    if not len(rhos) or not len(seeds) or not all(rhos):
        raise InterventionError(
            f"the strengths are {list(rhos)} and the seeds {list(seeds)}; give at least one of "
            "both, and no strength of 0 (it is measured anyway)"
        )
    norm = median_norm(model, vector, prompts)
    arms = [vector, *(random_like(vector, seed) for seed in seeds)]
    strengths = [strength_for(rho, vector, norm) for rho in rhos]
    plain = continuation_log_probabilities(model, prompts, targets, [()])[0].mean(1)
    neutral_ce = cross_entropies(model, neutral)[0]
    rows: list[SweepRow] = []
    for done, strength in enumerate(strengths, start=1):
        edits = [act(arm).interventions(strength) for arm in arms]
        told = continuation_log_probabilities(model, prompts, targets, edits).mean(2)
        changes = (told - plain).numpy().astype(np.float64)
        everywhere = [act(arm.at(EVERYWHERE)).interventions(strength) for arm in arms]
        costs = np.array(cross_entropies(model, neutral, everywhere)) - neutral_ce
        rho = rho_of(strength, vector, norm)
        low, high = _over_prompts(changes[0])
        own = _row("vector", strength, rho, changes[0], (low, high), costs[:1])
        by_seed = changes[1:].mean(1)
        rows += [own, _row("random", strength, rho, by_seed, _over_seeds(by_seed), costs[1:])]
        if on_progress is not None:
            on_progress(done, len(strengths))
    return Sweep(
        rows=tuple(rows),
        norm=norm,
        log_probability=float(plain.mean()),
        neutral_ce=neutral_ce,
        seeds=tuple(seeds),
    )


def _row(
    arm: str,
    strength: float,
    rho: float,
    effects: Float[np.ndarray, " n"],
    bounds: tuple[float | None, float | None],
    costs: Float[np.ndarray, " n"],
) -> SweepRow:
    return SweepRow(
        arm=arm,
        strength=strength,
        rho=rho,
        effect=float(effects.mean()),
        low=bounds[0],
        high=bounds[1],
        ce_change=float(costs.mean()),
    )


def _over_prompts(changes: Float[np.ndarray, " P"]) -> tuple[float | None, float | None]:
    rng = np.random.default_rng(0)

    def mean(draws: Float[np.ndarray, " P"]) -> float:
        return float(draws @ changes / draws.sum())

    return interval(mean, len(changes), bootstraps=_BOOTSTRAPS, rng=rng)


def _over_seeds(means: Float[np.ndarray, " K"]) -> tuple[float | None, float | None]:
    """Student's t interval of the mean over random vectors."""
    if len(means) < 2:
        return None, None
    from scipy import stats

    half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5
    return float(means.mean() - half), float(means.mean() + half)
