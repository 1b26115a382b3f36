"""The sweep over strengths, and its random arm."""

import numpy as np
import pytest
import torch

from pellucid.core.errors import InterventionError
from pellucid.core.types import Site
from pellucid.interventions.steering.continuations import continuation_log_probabilities
from pellucid.interventions.steering.strength import ce_changes, median_norm, random_like
from pellucid.interventions.steering.sweep import sweep
from pellucid.interventions.steering.vector import SteeringVector
from pellucid.interventions.where import EVERYWHERE, window
from pellucid.models.model import LanguageModel

PROMPTS, TARGETS, NEUTRAL = ["w5 w6", "w7", "w8 w9 w4"], ["w10 w11", "w12"], ["w20 w21 w22"]
VECTOR = SteeringVector(
    site=Site("resid_post", 1),
    vector=torch.randn(32, generator=torch.Generator().manual_seed(1)),
    method="by hand",
    where=window(-1),
)


def test_rows_are_what_single_measurements_say(tiny: LanguageModel) -> None:
    seen: list[tuple[int, int]] = []
    found = sweep(
        tiny,
        VECTOR,
        [0.5, -1.0],
        prompts=PROMPTS,
        targets=TARGETS,
        neutral=NEUTRAL,
        seeds=(3, 4, 5),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    assert [(row.arm, row.rho) for row in found.rows] == [
        ("vector", pytest.approx(0.5)),
        ("random", pytest.approx(0.5)),
        ("vector", pytest.approx(-1.0)),
        ("random", pytest.approx(-1.0)),
    ]
    assert found.norm == pytest.approx(median_norm(tiny, VECTOR, PROMPTS))
    for own, control in zip(found.rows[::2], found.rows[1::2], strict=True):
        effects, costs = [], []
        for arm in (VECTOR, *(random_like(VECTOR, seed) for seed in (3, 4, 5))):
            edits = arm.interventions(own.strength)
            told = continuation_log_probabilities(tiny, PROMPTS, TARGETS, [(), edits])
            effects.append((told[1] - told[0]).mean(1).numpy())
            costs += ce_changes(tiny, arm.at(EVERYWHERE), [own.strength], NEUTRAL)
        assert own.effect == pytest.approx(effects[0].mean(), abs=1e-5)
        assert own.low <= own.effect <= own.high
        assert own.ce_change == pytest.approx(costs[0], abs=1e-5)
        means = np.array([each.mean() for each in effects[1:]])
        assert control.effect == pytest.approx(means.mean(), abs=1e-5)
        half = 4.302653 * means.std(ddof=1) / 3**0.5  # t of 2 degrees of freedom
        assert control.high - control.effect == pytest.approx(half, rel=1e-3)
        assert control.ce_change == pytest.approx(np.mean(costs[1:]), abs=1e-5)
    assert found.to_json()["rows"][0]["arm"] == "vector"


def test_bad_sweeps(tiny: LanguageModel) -> None:
    def run(rhos=(1.0,), seeds=(0,), prompts=PROMPTS, targets=TARGETS, neutral=NEUTRAL) -> None:
        sweep(tiny, VECTOR, rhos, prompts=prompts, targets=targets, neutral=neutral, seeds=seeds)

    for changed in ({"rhos": ()}, {"rhos": (1.0, 0.0)}, {"seeds": ()}):
        with pytest.raises(InterventionError, match="no strength of 0"):
            run(**changed)
    with pytest.raises(InterventionError, match="rho is inf"):
        run(rhos=(float("inf"),))
    with pytest.raises(InterventionError, match="no token of 0 prompts"):
        run(prompts=[])
    with pytest.raises(InterventionError, match="0 continuations"):
        run(targets=[])
    with pytest.raises(InterventionError, match="no neutral text"):
        run(neutral=[])
