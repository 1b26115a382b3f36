"""Conditional steering: thresholds against brute force, gates row by row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import InterventionError
from pellucid.core.types import Site
from pellucid.interventions.generate import generate
from pellucid.interventions.run import run
from pellucid.interventions.steering.conditional import (
    ConditionalSteering,
    best_threshold,
    fit_condition,
)
from pellucid.interventions.steering.vector import SteeringVector
from pellucid.interventions.where import Where, window
from pellucid.models.model import LanguageModel

WHEN = [f"w{n} w5 w{n + 1}" for n in range(10, 22)]
UNLESS = [f"w{n} w6 w{n + 1}" for n in range(10, 22)]
VECTOR = SteeringVector(
    site=Site("resid_post", 1),
    vector=torch.randn(32, generator=torch.Generator().manual_seed(1)) * 3,
    method="by hand",
    where=window(-1),
)


def f1_of(opened: list[bool], truth: list[bool]) -> float:
    right = sum(a and b for a, b in zip(opened, truth, strict=True))
    return 2 * right / (sum(opened) + sum(truth)) if right else 0.0


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=12))
def test_no_threshold_beats_the_chosen_one(pairs: list[tuple[int, bool]]) -> None:
    readings, truth = [float(r) for r, _ in pairs], [t for _, t in pairs]
    if len(set(readings)) < 2:
        return
    threshold, above = best_threshold(torch.tensor(readings), torch.tensor(truth))
    found = f1_of([(r > threshold) == above for r in readings], truth)
    between = [n + 0.5 for n in range(-5, 5)]
    inside = [t for t in between if min(readings) < t < max(readings)]
    best = max(
        f1_of([(r > t) == side for r in readings], truth) for t in inside for side in (True, False)
    )
    assert found == pytest.approx(best)


def test_the_threshold_stands_in_the_middle_of_the_widest_gap() -> None:
    readings = torch.tensor([0.0, 1.0, 5.0, 6.0])
    assert best_threshold(readings, torch.tensor([False, False, True, True])) == (3.0, True)
    assert best_threshold(readings, torch.tensor([True, True, False, False])) == (3.0, False)


def test_prompts_of_either_kind_are_told_apart(tiny: LanguageModel) -> None:
    found = fit_condition(tiny, WHEN, UNLESS, ["resid_post@0", "resid_mid@1"])
    assert found.f1 == max(found.tried.values())
    assert set(found.tried) == {"resid_post@0", "resid_mid@1"}
    gate = found.gate
    assert (gate.measure, gate.reduce, gate.over) == ("cosine", "mean", Where(prompt=True))
    opened = []
    for text in WHEN[6:] + UNLESS[6:]:
        values = tiny.activations(tiny.encode(text)[None], [gate.site])[gate.site][0, 1:]
        reading = torch.cosine_similarity(values.mean(0), gate.vector, dim=0)
        opened.append(bool(reading > gate.threshold) == gate.above)
    truth = [True] * 6 + [False] * 6
    assert found.f1 == pytest.approx(f1_of(opened, truth))
    right = sum(a and b for a, b in zip(opened, truth, strict=True))
    assert (found.precision, found.recall) == (right / sum(opened), right / 6)


def test_the_gate_opens_row_by_row(tiny: LanguageModel) -> None:
    condition = fit_condition(tiny, WHEN, UNLESS, ["resid_post@0"])
    edits = ConditionalSteering(steering=VECTOR, condition=condition).interventions(2.0)
    assert [each.where for each in edits] == [window(-1)]
    mixed = [UNLESS[7], WHEN[8], "w40", UNLESS[9], WHEN[10]]
    plain, always = run(tiny, mixed).last, run(tiny, mixed, VECTOR.interventions(2.0)).last
    found = run(tiny, mixed, edits)
    expected = []
    for row, text in enumerate(mixed):
        values = tiny.activations(tiny.encode(text)[None], [condition.gate.site])
        mean = values[condition.gate.site][0, 1:].mean(0)
        reading = torch.cosine_similarity(mean, condition.gate.vector, dim=0)
        is_open = bool(reading > condition.gate.threshold) == condition.gate.above
        expected.append(is_open)
        torch.testing.assert_close(
            found.last[row], (always if is_open else plain)[row], atol=1e-4, rtol=1e-4
        )
    assert {True, False} == set(expected)
    (record,) = found.receipt.sites
    assert [edited for _, edited, _ in record.by_row] == [int(each) for each in expected]


def test_generation_is_steered_in_open_rows_alone(tiny: LanguageModel) -> None:
    condition = fit_condition(tiny, WHEN, UNLESS, ["resid_post@0"])
    edits = ConditionalSteering(steering=VECTOR, condition=condition).interventions(4.0)
    mixed = WHEN[:6] + UNLESS[:6]
    receipt = generate(tiny, mixed, edits, max_new_tokens=3).receipt
    plain = generate(tiny, mixed, max_new_tokens=3).tokens
    found = generate(tiny, mixed, edits, max_new_tokens=3).tokens
    closed = [row for row, *counts in receipt.sites[0].by_row if not sum(counts)]
    assert 0 < len(closed) < len(mixed)
    assert all(found[row] == plain[row] for row in closed)


def test_bad_conditions(tiny: LanguageModel) -> None:
    with pytest.raises(InterventionError, match="1 prompts to steer, 12 to leave alone"):
        fit_condition(tiny, WHEN[:1], UNLESS, ["resid_post@0"])
    with pytest.raises(InterventionError, match="0 sites"):
        fit_condition(tiny, WHEN, UNLESS, [])
    with pytest.raises(InterventionError, match="do not differ"):
        fit_condition(tiny, WHEN, WHEN, ["resid_post@0"])
