"""Directional ablation and the choice of a direction."""

import pytest
import torch

from pellucid.core.errors import InterventionError
from pellucid.core.types import Site
from pellucid.interventions.run import run, run_with_cache
from pellucid.interventions.steering.ablation import DirectionalAblation, choose_direction
from pellucid.interventions.steering.vector import SteeringVector
from pellucid.models.model import LanguageModel

WITH = [f"w{n} w5" for n in range(10, 18)]
WITHOUT = [f"w{n} w6" for n in range(10, 18)]
BEHAVIOUR = [7, 9]


def ablation() -> DirectionalAblation:
    direction = torch.randn(32, generator=torch.Generator().manual_seed(4)) * 5
    vector = SteeringVector(site="resid_pre@1", vector=direction, method="by hand")
    return DirectionalAblation(vector=vector, n_layers=3)


def test_the_direction_is_gone_wherever_something_is_written(tiny: LanguageModel) -> None:
    found = ablation()
    names = [f"{kind}@{layer}" for layer in range(3) for kind in ("resid_pre", "resid_post")]
    names += [f"{kind}@{layer}" for layer in range(3) for kind in ("attn_out", "mlp_out")]
    unit = found.vector.vector / found.vector.norm
    _, plain = run_with_cache(tiny, ["w5 w6 w7"], names)
    _, values = run_with_cache(tiny, ["w5 w6 w7"], names, found.interventions())
    for name in names:
        along = values[name][0] @ unit
        assert along[1:].abs().max() < 1e-4, name
        assert (plain[name][0] @ unit)[1:].abs().max() > 1e-2, name
    # The opening token is left alone.
    torch.testing.assert_close(values["resid_post@2"][0, 0], plain["resid_post@2"][0, 0])


def test_a_projection_has_no_strength() -> None:
    with pytest.raises(InterventionError, match=r"no strength, and 0\.5"):
        ablation().interventions(0.5)


def odds(model: LanguageModel, prompts: list[str], edits=()) -> float:
    logits = run(model, prompts, edits).last
    p = logits.softmax(-1)[:, BEHAVIOUR].sum(1)
    return float((p.log() - (1 - p).log()).mean())


def test_the_choice_is_the_best_of_the_allowed(tiny: LanguageModel) -> None:
    found = choose_direction(tiny, WITH, WITHOUT, BEHAVIOUR, positions=(-1, -2), kl_limit=1e9)
    # Layers 0 and 1 of three; at -2 the two sides agree, as at the first block's last token not.
    assert {(c.layer, c.position) for c in found.candidates} <= {
        (layer, place) for layer in (0, 1) for place in (-1, -2)
    }
    assert {c.layer for c in found.candidates} == {0, 1}
    assert all(c.eligible for c in found.candidates)
    best = min(found.candidates, key=lambda c: c.behaviour)
    vector = found.ablation.vector
    assert (vector.site, vector.provenance["position"]) == (
        Site("resid_pre", best.layer),
        best.position,
    )
    site = vector.site
    high, low = (
        torch.stack(
            [tiny.activations(tiny.encode(t)[None], [site])[site][0, best.position] for t in side]
        ).mean(0)
        for side in (WITH[:4], WITHOUT[:4])
    )
    torch.testing.assert_close(vector.vector, high - low, atol=1e-5, rtol=1e-4)
    assert found.before == pytest.approx(odds(tiny, WITH[4:]), abs=1e-4)
    edits = found.ablation.interventions()
    assert best.behaviour == pytest.approx(odds(tiny, WITH[4:], edits), abs=1e-4)
    induced = odds(tiny, WITHOUT[4:], vector.interventions())
    assert best.induced == pytest.approx(induced, abs=1e-4)
    p = run(tiny, WITHOUT[4:]).last.log_softmax(-1)
    q = run(tiny, WITHOUT[4:], edits).last.log_softmax(-1)
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean")
    assert best.kl == pytest.approx(float(kl), abs=1e-5)


def test_a_limit_leaves_out_what_changes_harmless_text(tiny: LanguageModel) -> None:
    every = choose_direction(tiny, WITH, WITHOUT, BEHAVIOUR, kl_limit=1e9).candidates
    limit = sorted(c.kl for c in every)[0] * 1.01
    found = choose_direction(tiny, WITH, WITHOUT, BEHAVIOUR, kl_limit=limit)
    assert [c.eligible for c in found.candidates] == [c.kl <= limit for c in every]
    assert sum(c.eligible for c in found.candidates) == 1
    with pytest.raises(InterventionError, match="none of 2 directions"):
        choose_direction(tiny, WITH, WITHOUT, BEHAVIOUR, kl_limit=-1.0)
    with pytest.raises(InterventionError, match="give at least 2, 2 and 1"):
        choose_direction(tiny, WITH, WITHOUT, [])
