"""When a free score decides about a step, and when its graph is needed.

Below `low` a step passes, from `high` on it is flagged; between the two, in the band, its graph is
traced and the whole verifier decides. The thresholds are chosen on steps that the verifier has
judged: the smallest band outside of which the free score decides as the verifier does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from pellucid.core.errors import ConfigError, DataError
from pellucid.core.files import write_text
from pellucid.core.proportions import Proportion, wilson

BAND_FILE = "band.json"
AGREEMENT = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The steps on one side of the band.

    Attributes:
        steps: how many.
        agree: share of them that the verifier decides in the same way.
        wrong: share of them that are wrong, with its interval: what is said of such a step.
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
    probability: Float[np.ndarray, " N"],
    threshold: float,
    wrong: Bool[np.ndarray, " N"],
    *,
    agreement: float = AGREEMENT,
) -> Band:
    """The free score and the thresholds that leave the fewest steps to graphs.

    Args:
        scores: free score -> its value of each step, higher where a step is more likely wrong.
        probability: the whole verifier's, of steps that it was not fitted on (out of fold).
        threshold: from which probability on the verifier flags.
        wrong: the truth; only for what is said of the steps outside the band.
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
    if not len(probability):
        raise DataError("there are no steps to choose a band on; give labelled steps")
    flagged = probability >= threshold
    bands = [
        _band(name, np.asarray(values, dtype=np.float64), flagged, wrong, agreement)
        for name, values in scores.items()
    ]
    return min(bands, key=lambda band: band.share)


def _band(
    name: str,
    scores: Float[np.ndarray, " N"],
    flagged: Bool[np.ndarray, " N"],
    wrong: Bool[np.ndarray, " N"],
    agreement: float,
) -> Band:
    order = np.argsort(scores, kind="stable")
    ranked, flags = scores[order], flagged[order]
    n = _longest(ranked, flags, agreement, most=(1 - agreement) * flags.sum())
    low = -np.inf if not n else ranked[n] if n < len(ranked) else np.nextafter(ranked[-1], np.inf)
    m = _longest(-ranked[::-1], ~flags[::-1], agreement, most=np.inf)
    m = min(m, len(ranked) - n)
    high = ranked[len(ranked) - m] if m else np.inf
    below, above = scores < low, scores >= high
    return Band(
        column=name,
        low=float(low),
        high=float(high),
        agreement=agreement,
        share=float(1 - (below | above).mean()),
        below=_side(below, ~flagged, wrong),
        above=_side(above & ~below, flagged, wrong),
    )


def _longest(
    ranked: Float[np.ndarray, " N"],
    against: Bool[np.ndarray, " N"],
    agreement: float,
    *,
    most: float,
) -> int:
    """How many of the first steps may be decided: few of them against, and ties not cut."""
    count = np.arange(1, len(ranked) + 1)
    bad = np.cumsum(against)
    ends = np.append(ranked[1:] > ranked[:-1], True)
    allowed = ends & (bad <= (1 - agreement) * count + 1e-9) & (bad <= most + 1e-9)
    return int(count[allowed][-1]) if allowed.any() else 0


def _side(
    chosen: Bool[np.ndarray, " N"], agrees: Bool[np.ndarray, " N"], wrong: Bool[np.ndarray, " N"]
) -> Side:
    steps = int(chosen.sum())
    if not steps:
        return Side(steps=0, agree=1.0, wrong=None)
    return Side(
        steps=steps,
        agree=float(agrees[chosen].mean()),
        wrong=wilson(int(wrong[chosen].sum()), steps),
    )


def write_band(band: Band, folder: Path) -> Path:
    """Keep a band beside the verifier that it was chosen for.

    Args:
        band: to keep.
        folder: of the verifier.

    Raises:
        StorageError: the disk refuses.
    """
    path = Path(folder) / BAND_FILE
    write_text(path, json.dumps(band.to_json(), indent=2, allow_nan=False) + "\n")
    return path


def read_band(folder: Path) -> Band | None:
    """The band beside a verifier; None where there is none.

    Args:
        folder: of the verifier.

    Raises:
        DataError: the file is damaged.
    """
    path = Path(folder) / BAND_FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["low"] = -np.inf if record["low"] is None else float(record["low"])
        record["high"] = np.inf if record["high"] is None else float(record["high"])
        for name in ("below", "above"):
            share = record[name]["wrong"]
            record[name]["wrong"] = None if share is None else Proportion(**share)
            record[name] = Side(**record[name])
        return Band(**record)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} is no band ({error}); choose it again") from None


def free_scores(columns: Mapping[str, Any], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some columns as scores.

    Args:
        columns: name -> one value a step.
        names: of the free scores wanted.

    Raises:
        DataError: one is missing.
    """
    if missing := [name for name in names if name not in columns]:
        raise DataError(f"the steps lack the free score {missing[0]!r}; collect them again")
    return {name: np.asarray(columns[name], dtype=np.float64) for name in names}
