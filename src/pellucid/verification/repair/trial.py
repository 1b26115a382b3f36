"""Repair measured: every arm on the same flagged steps, whose truth only the score knows."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from pellucid.core.claims import claim_folder
from pellucid.core.errors import ConfigError, DataError
from pellucid.core.files import write_text
from pellucid.graphs.resampling import interval
from pellucid.verification.chains.errors import judge
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.kept import KeptChain
from pellucid.verification.repair.judges import Judgement
from pellucid.verification.repair.mend import Flagged, Mender
from pellucid.verification.repair.proposals import ARMS
from pellucid.verification.steps.table import labelled_places
from pellucid.verification.watching.segments import Segment

NONE = "none"
PART = 16
"""Chains a part."""
_BOOTSTRAPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings:
    """What is measured.

    Attributes:
        arms: of `proposals.ARMS`; `none` is always beside them.
        right_share: share of right steps that is judged; each then stands for several.
        seed: of the choice and of what is random in an arm.

    Raises:
        ConfigError: an unknown arm, or no share.
    """

    arms: tuple[str, ...] = ("suspects", "random", "resample")
    right_share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _ = [ARMS[arm] for arm in self.arms]
        if not 0 < self.right_share <= 1:
            raise ConfigError(f"the share of right steps is {self.right_share}; give one in (0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One step: whether it was wrong, was flagged, and what each arm left behind.

    Attributes:
        group: its question.
        wrong: as it was written.
        weight: how many steps it stands for.
        flagged: by the judge.
        layer: the accused layer, None for a step that was not flagged.
        wrong_after: arm -> whether the step is wrong afterwards.
        changed: arm -> whether another answer was taken.
        proposed: arm -> whether the right step was among those verified (an oracle's view).
        seconds: arm -> processor time.
    """

    group: str
    wrong: bool
    weight: float
    flagged: bool
    layer: int | None = None
    wrong_after: dict[str, bool] = field(default_factory=dict)
    changed: dict[str, bool] = field(default_factory=dict)
    proposed: dict[str, bool] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run_trial(
    mender: Mender,
    chains: Sequence[KeptChain],
    folder: str | Path,
    settings: TrialSettings | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[TrialRow]:
    """Try every arm on the steps of some chains, each through its first wrong step.

    Parts are written whole or not at all; a run that was killed goes on where it was.

    Args:
        mender: of the model that wrote the chains.
        chains: of expressions, whose truth is known.
        folder: of the parts.
        settings: what is measured.
        on_progress: called with (chains done, all chains).

    Raises:
        CheckpointError: the folder holds another trial.
        DataError: no chain could be read, or they are free text.
    """
    settings, folder = settings or TrialSettings(), Path(folder)
    usable = [each.until_error() for each in chains if each.unread is None]
    if not usable or any(each.language not in LANGUAGES for each in usable):
        raise DataError(
            f"{len(usable)} of {len(chains)} chains can be read; give chains of expressions, whose "
            "steps can be executed"
        )
    record = {
        "model": mender.model.fingerprint(),
        "judge": mender.judge.record(),
        "tries": asdict(mender.tries),
        "settings": asdict(settings),
        "chains": [each.id for each in usable],
    }
    claim_folder(folder, record, "repairs")
    rows: list[TrialRow] = []
    for start in range(0, len(usable), PART):
        target = folder / f"part-{start // PART:05d}.json"
        if not target.exists():
            part = [
                row
                for number, each in enumerate(usable[start : start + PART], start)
                for row in _chain_rows(mender, each, number, settings)
            ]
            write_text(target, json.dumps([asdict(row) for row in part]))
        rows += [TrialRow(**row) for row in json.loads(target.read_text())]
        if on_progress is not None:
            on_progress(min(start + PART, len(usable)), len(usable))
    return rows


def _chain_rows(
    mender: Mender, kept: KeptChain, number: int, settings: TrialSettings
) -> list[TrialRow]:
    rng, rows = Random(f"{settings.seed}/{number}"), []
    assert not hasattr(kept.chain, "text")
    ids: tuple[int, ...] = kept.chain.ids
    for labels, place in labelled_places(mender.model, kept, number):
        if not labels["wrong"] and rng.random() >= settings.right_share:
            continue
        segment = Segment(
            number=labels["number"],
            text=labels["text"],
            before=labels["before"],
            question=kept.group,
            place=place,
        )
        found = mender.flag(ids, segment, kept.language)
        weight = 1.0 if labels["wrong"] else 1.0 / settings.right_share
        rows.append(_row(mender, found, kept, bool(labels["wrong"]), weight, settings))
    return rows


def _row(
    mender: Mender,
    found: Flagged | Judgement,
    kept: KeptChain,
    wrong: bool,
    weight: float,
    settings: TrialSettings,
) -> TrialRow:
    if isinstance(found, Judgement):
        return TrialRow(group=kept.group, wrong=wrong, weight=weight, flagged=False)
    language, before = LANGUAGES[kept.language], found.segment.before.split()
    after, changed, proposed, seconds = {}, {}, {}, {}
    for arm in settings.arms:
        made = mender.mend(found, arm, seed=settings.seed)
        changed[arm] = made.accepted
        text = found.segment.text if made.segment is None else made.segment.text
        after[arm] = judge(language, before, text.split()) is not None
        proposed[arm] = any(
            bool(each.text) and judge(language, before, each.text.split()) is None
            for each in made.verified
        )
        seconds[arm] = made.seconds
    return TrialRow(
        group=kept.group,
        wrong=wrong,
        weight=weight,
        flagged=True,
        layer=found.accusation.layer,
        wrong_after=after,
        changed=changed,
        proposed=proposed,
        seconds=seconds,
    )


def summarise(
    rows: Sequence[TrialRow], arms: Sequence[str], *, baseline: str = "resample", seed: int = 0
) -> dict[str, Any]:
    """Shares of each arm with 95% intervals from questions drawn with replacement.

    `fix_rate`: of all wrong steps, those that are right afterwards. `harm`: of all right steps
    (weighted), those that are wrong afterwards; `harm_high` its upper end. `low` and `high` belong
    to the fix rate; `gain` is its paired difference to the baseline's.

    Args:
        rows: of the trial.
        arms: to summarise; `none` is added.
        baseline: arm that gains are measured against, if it is among them.
        seed: of the draws.

    Raises:
        DataError: there is no wrong step, or no right one.
    """
    wrong = np.array([row.wrong for row in rows], dtype=bool)
    if not wrong.any() or wrong.all():
        raise DataError(
            f"{int(wrong.sum())} of {len(rows)} steps are wrong; repair needs wrong and right ones"
        )
    groups = np.unique([row.group for row in rows], return_inverse=True)[1].reshape(-1)
    sums = _Sums(rows, groups)
    found = {arm: sums.arm(arm, baseline if baseline in arms else None, seed) for arm in arms}
    found[NONE] = {"fix_rate": 0.0, "low": 0.0, "high": 0.0, "harm": 0.0, "harm_high": 0.0}
    flagged = np.array([row.flagged for row in rows], dtype=bool)
    weight = np.array([row.weight for row in rows])
    return {
        "repair": found,
        "wrong": int(wrong.sum()),
        "right": float(weight[~wrong].sum()),
        "right_judged": int((~wrong).sum()),
        "recall": float(flagged[wrong].mean()),
        "false_alarms": float(weight[~wrong & flagged].sum() / weight[~wrong].sum()),
    }


class _Sums:
    """Sums by question, so that a draw of questions is a product."""

    def __init__(self, rows: Sequence[TrialRow], groups: np.ndarray) -> None:
        self.rows, self.groups, self.count = rows, groups, int(groups.max()) + 1
        self.wrong = np.array([row.wrong for row in rows], dtype=np.float64)
        self.right = np.array([row.weight * (not row.wrong) for row in rows], dtype=np.float64)

    def by_group(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.groups, values, minlength=self.count)

    def arm(self, arm: str, baseline: str | None, seed: int) -> dict[str, Any]:
        after = self._after(arm)
        wrong, right = self.by_group(self.wrong), self.by_group(self.right)
        fixed, harmed = self.by_group(self.wrong * (1 - after)), self.by_group(self.right * after)
        fix, harm = _share(fixed, wrong), _share(harmed, right)
        ones = np.ones(self.count)
        (low, high), (_, harm_high) = (self._interval(each, seed) for each in (fix, harm))
        spent = [row.seconds[arm] for row in self.rows if arm in row.seconds]
        found: dict[str, Any] = {
            "fix_rate": fix(ones),
            "low": low,
            "high": high,
            "harm": harm(ones),
            "harm_high": harm_high,
            "proposed": _mean(row.proposed.get(arm, False) for row in self.rows if row.wrong),
            "seconds": float(np.mean(spent)) if spent else 0.0,
        }
        if baseline is not None and baseline != arm:
            other = self.by_group(self.wrong * (1 - self._after(baseline)))
            gain = _share(fixed - other, wrong)
            ends = self._interval(gain, seed)
            found["gain"] = {"over": baseline, "value": gain(ones), "low": ends[0], "high": ends[1]}
        return found

    def _after(self, arm: str) -> np.ndarray:
        return np.array([row.wrong_after.get(arm, row.wrong) for row in self.rows], dtype=float)

    def _interval(
        self, statistic: Callable[[np.ndarray], float], seed: int
    ) -> tuple[float | None, float | None]:
        rng = np.random.default_rng(seed)
        return interval(statistic, self.count, bootstraps=_BOOTSTRAPS, rng=rng)


def _share(part: np.ndarray, whole: np.ndarray) -> Callable[[np.ndarray], float]:
    def share(draws: np.ndarray) -> float:
        total = float(draws @ whole)
        return float(draws @ part) / total if total > 0 else float("nan")

    return share


def _mean(flags: Any) -> float:
    values = [float(each) for each in flags]
    return sum(values) / len(values) if values else 0.0
