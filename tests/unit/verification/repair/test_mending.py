"""Mending steps and chains, and measuring it."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch

from pellucid.core.errors import CheckpointError, ConfigError, DataError, DictionaryError
from pellucid.verification.chains.errors import judge
from pellucid.verification.chains.expressions import ARITHMETIC
from pellucid.verification.reading.reader import Reader
from pellucid.verification.repair import trial
from pellucid.verification.repair.chain import repair
from pellucid.verification.repair.judges import ConfidenceJudge, Judgement, StepJudge
from pellucid.verification.repair.mend import Flagged, Mender
from pellucid.verification.repair.proposals import ARMS, Tries, proposals
from pellucid.verification.repair.trial import TrialRow, TrialSettings, run_trial, summarise
from pellucid.verification.watching.segments import Segment, segmenter
from tests.unit.verification.repair.conftest import ANSWERS, LAYER, Planted


class LeftOutJudge(StepJudge):
    """Flags a step whose answer the tampered layer wrote past its dictionary. Knows no truth."""

    def __init__(self, planted: Planted) -> None:
        self.reader = Reader(planted.model, planted.dictionaries, ANSWERS)

    def judge(self, ids: Sequence[int], segment: Segment, language: str) -> Judgement:
        chain = self.reader.chain(list(ids[: segment.place.stop]))
        share = float(chain.left_out[LAYER, segment.place.answer[0] - 1])
        return Judgement(share, share > 0.6)


@pytest.fixture(scope="module")
def mender(planted: Planted) -> Mender:
    return Mender(
        planted.model,
        planted.dictionaries,
        LeftOutJudge(planted),
        planted.usual,
        tries=Tries(count=12, verified=2),
    )


@pytest.fixture(scope="module")
def flagged(planted: Planted, mender: Mender) -> Flagged:
    """A wrong step that the judge flags."""
    for kept in planted.chains:
        for number, step in enumerate(kept.chain.chain.steps):
            ids = kept.chain.ids
            cutting = segmenter(planted.model, ids, by="expressions", language="arithmetic")
            segment = cutting.complete(ids, ended=True)[number]
            if not step.local:
                found = mender.flag(ids, segment, "arithmetic")
                if isinstance(found, Flagged):
                    return found
                break
    raise AssertionError("no wrong step is flagged")


@pytest.mark.parametrize("arm", list(ARMS))
def test_every_arm_keeps_to_its_tries(arm: str, flagged: Flagged, mender: Mender) -> None:
    tries = Tries(count=9, verified=2)
    written = flagged.ids[flagged.segment.place.answer[0]]
    made = proposals(arm, flagged.replay, flagged.accusation, tries, written=written, seed=1)
    again = proposals(arm, flagged.replay, flagged.accusation, tries, written=written, seed=1)
    assert [each.token for each in made] == [each.token for each in again]
    assert written not in [each.token for each in made]
    assert len({each.token for each in made}) == len(made)
    assert sum(each.agreeing for each in made) <= tries.count
    assert all(each.number < tries.count for each in made)
    assert len(mender.mend(flagged, arm).verified) <= mender.tries.verified
    kinds = {"features": {"feature"}, "errors": {"error", "layer"}}
    for each in made:
        assert each.suspect is None or each.suspect.kind in kinds.get(arm, {each.suspect.kind})


def test_likeliest_are_the_models_own_next_choices(flagged: Flagged) -> None:
    order = flagged.replay.logits.argsort(descending=True).tolist()
    tries = Tries(count=5)
    made = proposals("likeliest", flagged.replay, flagged.accusation, tries, written=order[1])
    assert [each.token for each in made] == [order[0], *order[2:5]]


def test_a_mended_step_is_right_and_verified_under_its_edit(
    flagged: Flagged, mender: Mender
) -> None:
    made = mender.mend(flagged, "errors")
    assert made.accepted and made.segment is not None
    before = flagged.segment.before.split()
    assert judge(ARITHMETIC, before, flagged.segment.text.split()) is not None
    assert judge(ARITHMETIC, before, made.segment.text.split()) is None
    last = made.verified[-1]
    assert last.accepted and last.proposal.edit is not None
    # nothing stays behind: unedited, the model's answer is flagged as before
    assert mender.judge.judge(flagged.ids, flagged.segment, "arithmetic") == flagged.judgement


def test_resampling_does_not_mend_a_confident_error(flagged: Flagged, mender: Mender) -> None:
    made = mender.mend(flagged, "resample")
    assert not made.accepted and made.ids is None and made.to_json()["text"] is None


def test_a_chain_is_repaired_to_its_end(planted: Planted, mender: Mender, flagged: Flagged) -> None:
    kept = next(k for k in planted.chains if k.chain.ids[: len(flagged.ids)] == flagged.ids)
    record = repair(mender, kept.chain.ids, language="arithmetic")
    assert record.changed
    said = record.to_json()
    assert said["outcomes"].get("mended", 0) >= 1
    number = flagged.segment.number
    assert [s["outcome"] for s in said["steps"][:number]] == ["verified"] * number
    assert said["steps"][number]["accusation"]["layer"] == LAYER
    words = planted.model.token_texts(list(record.repaired[1:]))
    assert [word.strip() for word in words].count("=") == len(record.steps)


def test_an_unflagged_chain_stays_as_it_is(planted: Planted) -> None:
    judge_ = ConfidenceJudge(planted.model, 1e-9)
    mender = Mender(planted.model, planted.dictionaries, judge_, planted.usual)
    ids = planted.chains[0].chain.ids
    record = repair(mender, ids, language="arithmetic")
    assert record.repaired == ids and not record.changed
    assert {step.outcome for step in record.steps} == {"verified"}


def test_confidence_judges_by_the_least_likely_token(planted: Planted) -> None:
    ids = planted.chains[0].chain.ids
    cutting = segmenter(planted.model, ids, by="expressions", language="arithmetic")
    segment = cutting.complete(ids, ended=True)[0]
    with torch.no_grad():
        shares = planted.model.logits(torch.tensor([ids]))[0].softmax(-1)
    place = segment.place
    least = min(float(shares[p - 1, ids[p]]) for p in range(place.start, place.stop))
    found = ConfidenceJudge(planted.model, 0.5).judge(ids, segment, "arithmetic")
    assert found.score == pytest.approx(1 - least, abs=1e-5)
    assert found.flagged == (least < 0.5)


def test_bad_settings_are_refused(planted: Planted) -> None:
    with pytest.raises(ConfigError, match="0 tries"):
        Tries(count=0)
    with pytest.raises(ConfigError, match="the share of right steps is 0"):
        TrialSettings(right_share=0)
    with pytest.raises(ConfigError, match="arm"):
        TrialSettings(arms=("guessing",))
    with pytest.raises(ConfigError, match="least probability is 2"):
        ConfidenceJudge(planted.model, 2)


class KilledError(Exception):
    """Stands for a process that was killed."""


def test_a_killed_trial_goes_on(
    planted: Planted, mender: Mender, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "PART", 2)
    chains = [k for k in planted.chains if not all(k.labels())][:3] + planted.chains[:1]
    chains = list({each.id: each for each in chains}.values())
    settings = TrialSettings(arms=("errors", "resample"), right_share=0.5)
    whole = run_trial(mender, chains, tmp_path / "a", settings)  # type: ignore[operator]

    def stop(done: int, total: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run_trial(mender, chains, tmp_path / "b", settings, on_progress=stop)  # type: ignore[operator]
    resumed = run_trial(mender, chains, tmp_path / "b", settings)  # type: ignore[operator]
    assert [_timeless(row) for row in resumed] == [_timeless(row) for row in whole]
    assert any(row.wrong and row.flagged and not row.wrong_after["errors"] for row in whole)
    with pytest.raises(CheckpointError, match="other settings; give another folder"):
        run_trial(mender, chains, tmp_path / "b", TrialSettings())  # type: ignore[operator]


def _timeless(row: TrialRow) -> TrialRow:
    return dataclasses.replace(row, seconds={})


def test_a_trial_needs_chains_whose_truth_is_known(mender: Mender, tmp_path: object) -> None:
    with pytest.raises(DataError, match="0 of 0 chains can be read"):
        run_trial(mender, [], tmp_path / "c")  # type: ignore[operator]


def test_summary_counts_by_hand() -> None:
    def row(wrong: bool, flagged: bool, weight: float = 1.0, **after: bool) -> TrialRow:
        changed = dict.fromkeys(after, True)
        return TrialRow(
            group=f"q{row_number()}",
            wrong=wrong,
            weight=weight,
            flagged=flagged,
            wrong_after=after,
            changed=changed,
            seconds=dict.fromkeys(after, 2.0),
        )

    numbers = iter(range(100))

    def row_number() -> int:
        return next(numbers)

    rows = [
        row(True, True, ours=False, resample=True),
        row(True, True, ours=False, resample=False),
        row(True, True, ours=True, resample=True),
        row(True, False),
        row(False, True, 3.0, ours=True, resample=False),
        row(False, False, 3.0),
        row(False, False, 4.0),
    ]
    found = summarise(rows, ("ours", "resample"))
    ours = found["repair"]["ours"]
    assert ours["fix_rate"] == 0.5 and found["repair"]["resample"]["fix_rate"] == 0.25
    assert ours["harm"] == pytest.approx(0.3) and found["repair"]["resample"]["harm"] == 0
    assert ours["gain"]["value"] == 0.25 and ours["seconds"] == 2.0
    assert ours["low"] <= 0.5 <= ours["high"] and ours["harm_high"] >= 0.3
    assert (found["wrong"], found["right"], found["recall"]) == (4, 10.0, 0.75)
    assert found["false_alarms"] == pytest.approx(0.3)
    assert found["repair"]["none"]["fix_rate"] == 0
    with pytest.raises(DataError, match="0 of 2 steps are wrong"):
        summarise(rows[-2:], ("ours",))
    rng = np.random.default_rng(0)
    many = [
        dataclasses.replace(rows[n], group=f"g{m}")
        for m, n in enumerate(rng.integers(0, 4, 400).tolist())
    ] + rows[4:]
    gain = summarise(many, ("ours", "resample"))["repair"]["ours"]["gain"]
    assert gain["low"] > 0.18 and gain["high"] < 0.32


def test_dictionaries_that_write_elsewhere_are_refused(planted: Planted) -> None:
    class Elsewhere:
        write_sites = ("resid_post@0",)

    class Set:
        dictionaries: ClassVar = {0: Elsewhere()}

    with pytest.raises(DictionaryError, match="writes to resid_post@0"):
        Mender(planted.model, Set(), LeftOutJudge(planted), planted.usual)  # type: ignore[arg-type]
