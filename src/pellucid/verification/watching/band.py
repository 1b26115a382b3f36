"""When a free score decides about a step, and when its graph is needed.

Below `low` a step passes, from `high` on it is flagged; between the two, in the band, its graph is
traced and the whole verifier decides. The thresholds are chosen on steps that the verifier has
judged: the smallest band outside of which the free score decides as the verifier does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from pellucid.core.errors import ConfigError, DataError
from pellucid.core.proportions import Proportion, wilson

AGREEMENT = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The steps on one side of the band.

    Attributes:
        steps: how many.
        agree: share of them (by weight) that the verifier decides in the same way.
        wrong: share of them that are wrong, with its interval: what is said of such a step. The
            share is by weight, the interval as of so many unweighted steps.
    """

    steps: int
    agree: float
    wrong: Proportion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Two thresholds of a free score.

    Attributes:
        column: the free score, higher where a step is more likely wrong.
        low: below it a step passes without a graph; -inf for never.
        high: from it on a step is flagged without a graph; inf for never.
        agreement: that was asked for, of decisions on either side with those of the verifier; the
            flags of the verifier that fall below `low` are at most 1 - agreement of all its flags.
        share: of the steps whose graph is needed.
        below, above: the steps on either side.
    """

    column: str
    low: float
    high: float
    agreement: float
    share: float
    below: Side
    above: Side

    def decides(self, score: float) -> bool | None:
        """Whether a step is flagged, as far as the free score says; None within the band.

        Args:
            score: of the step.
        """
        if score < self.low:
            return False
        return True if score >= self.high else None

    def side(self, score: float) -> Side:
        """The steps on the side of a score outside the band.

        Args:
            score: outside the band.
        """
        return self.below if score < self.low else self.above

    def to_json(self) -> dict[str, Any]:
        """JSON-able; infinite thresholds as None."""
        record = asdict(self)
        for name in ("low", "high"):
            record[name] = None if np.isinf(record[name]) else record[name]
        return record


def choose_band(
    scores: Mapping[str, Float[np.ndarray, " N"]],
    flagged: Bool[np.ndarray, " N"],
    wrong: Bool[np.ndarray, " N"],
    weight: Float[np.ndarray, " N"],
    *,
    agreement: float = AGREEMENT,
) -> Band:
    """The free score and the thresholds that leave the smallest share of steps to graphs.

    Args:
        scores: free score -> its value of each step, higher where a step is more likely wrong.
        flagged: what the whole verifier says, of steps that it was not fitted on.
        wrong: the truth; only for what is said of the steps outside the band.
        weight: how many steps each stands for.
        agreement: least share of decisions on either side that are the verifier's.

    Raises:
        ConfigError: the agreement is no share, or there is no score.
        DataError: there are no steps.
    """
    if not 0 < agreement <= 1 or not scores:
        raise ConfigError(
            f"the agreement is {agreement} and there are {len(scores)} free scores; give a share "
            "above 0 and at least one score"
        )
    if not len(flagged):
        raise DataError("there are no steps to choose a band on; give labelled steps")
    return min(
        (
            _band(name, np.asarray(values, dtype=np.float64), flagged, wrong, weight, agreement)
            for name, values in scores.items()
        ),
        key=lambda band: band.share,
    )


def _band(
    name: str,
    scores: Float[np.ndarray, " N"],
    flagged: Bool[np.ndarray, " N"],
    wrong: Bool[np.ndarray, " N"],
    weight: Float[np.ndarray, " N"],
    agreement: float,
) -> Band:
    order = np.argsort(scores, kind="stable")
    ranked, flags, w = scores[order], flagged[order], weight[order]
    may_miss = (1 - agreement) * float(w @ flags)
    n = _longest(ranked, w * flags, w, agreement, most=may_miss)
    low = -np.inf if not n else ranked[n] if n < len(ranked) else np.nextafter(ranked[-1], np.inf)
    back = slice(None, None, -1)
    m = min(
        _longest(-ranked[back], (w * ~flags)[back], w[back], agreement, most=np.inf),
        len(ranked) - n,
    )
    high = ranked[len(ranked) - m] if m else np.inf
    below, above = scores < low, scores >= high
    return Band(
        column=name,
        low=float(low),
        high=float(high),
        agreement=agreement,
        share=float(1 - weight @ (below | above) / weight.sum()),
        below=_side(below, ~flagged, wrong, weight),
        above=_side(above, flagged, wrong, weight),
    )


def _longest(
    ranked: Float[np.ndarray, " N"],
    against: Float[np.ndarray, " N"],
    weight: Float[np.ndarray, " N"],
    agreement: float,
    *,
    most: float,
) -> int:
    """How many of the first steps may be decided: little weight against it, and ties not cut."""
    count = np.arange(1, len(ranked) + 1)
    bad, all_of_them = np.cumsum(against), np.cumsum(weight)
    ends = np.append(ranked[1:] > ranked[:-1], True)
    slack = 1e-9 * weight.sum()
    allowed = ends & (bad <= (1 - agreement) * all_of_them + slack) & (bad <= most + slack)
    return int(count[allowed][-1]) if allowed.any() else 0


def _side(
    chosen: Bool[np.ndarray, " N"],
    agrees: Bool[np.ndarray, " N"],
    wrong: Bool[np.ndarray, " N"],
    weight: Float[np.ndarray, " N"],
) -> Side:
    steps = int(chosen.sum())
    if not steps:
        return Side(steps=0, agree=1.0, wrong=None)
    total = weight[chosen].sum()
    share = float(weight[chosen] @ wrong[chosen] / total)
    return Side(
        steps=steps,
        agree=float(weight[chosen] @ agrees[chosen] / total),
        wrong=wilson(round(share * steps), steps),
    )
