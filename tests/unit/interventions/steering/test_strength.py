"""Relative strength, random controls and the cost on neutral text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import InterventionError
from pellucid.core.types import Site
from pellucid.interventions.steering.strength import (
    ce_changes,
    cross_entropies,
    median_norm,
    random_like,
    rho_of,
    strength_for,
    strengths_of,
)
from pellucid.interventions.steering.vector import SteeringVector
from pellucid.interventions.where import EVERYWHERE, Where, at, generated, span, window
from pellucid.models.model import LanguageModel

SITE = Site("resid_post", 1)
TEXTS = ["w5 w6 w7 w8", "w9", "w10 w11 w5"]


def vector_of(width: int = 32, where: Where = EVERYWHERE, scale: float = 1.0) -> SteeringVector:
    values = torch.randn(width, generator=torch.Generator().manual_seed(3)) * scale
    return SteeringVector(site=SITE, vector=values, method="by hand", where=where)


def lengths(model: LanguageModel, text: str) -> torch.Tensor:
    return model.activations(model.encode(text)[None], [SITE])[SITE][0].norm(dim=1)


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        (EVERYWHERE, lambda n: n[1:]),
        (at(-1), lambda n: n[-1:]),
        (window(-1), lambda n: n[-1:]),
        (window(0), lambda n: n),
        (span("w5"), None),
    ],
)
def test_median_norm_over_the_edited_tokens(tiny: LanguageModel, where: Where, chosen) -> None:
    if chosen is None:
        expected = torch.stack([lengths(tiny, TEXTS[0])[1], lengths(tiny, TEXTS[2])[3]]).median()
        found = median_norm(tiny, vector_of(where=where), [TEXTS[0], TEXTS[2]])
    else:
        expected = torch.cat([chosen(lengths(tiny, text)) for text in TEXTS]).median()
        found = median_norm(tiny, vector_of(where=where), TEXTS)
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_nothing_edited_has_no_norm(tiny: LanguageModel) -> None:
    with pytest.raises(InterventionError, match="would edit no token of 3 prompts"):
        median_norm(tiny, vector_of(where=generated(0)), TEXTS)
    with pytest.raises(InterventionError, match="no token of 0 prompts"):
        median_norm(tiny, vector_of(), [])


@given(
    rho=st.floats(-10, 10, allow_subnormal=False),
    norm=st.floats(0.1, 1e4),
    scale=st.floats(0.01, 100),
)
def test_strength_and_rho_are_inverses(rho: float, norm: float, scale: float) -> None:
    vector = vector_of(scale=scale)
    assert rho_of(strength_for(rho, vector, norm), vector, norm) == pytest.approx(rho, abs=1e-6)


def test_rho_must_be_finite() -> None:
    with pytest.raises(InterventionError, match="rho is nan"):
        strength_for(float("nan"), vector_of(), 1.0)


def test_random_vectors_have_the_same_length_and_their_own_direction() -> None:
    vector = vector_of(scale=7.0).at(at(-1))
    first, again, second = (random_like(vector, seed) for seed in (0, 0, 1))
    assert first.norm == pytest.approx(vector.norm)
    assert (first.site, first.where, first.method) == (vector.site, vector.where, "random")
    assert torch.equal(first.vector, again.vector)
    assert abs(first.cosine(second)) < 0.6
    assert abs(first.cosine(vector)) < 0.6


def by_hand(model: LanguageModel, text: str, added: torch.Tensor | None = None) -> torch.Tensor:
    """Nats of each token but the first, from a single prompt with a bare tap."""
    ids = model.encode(text)[None]

    def add(value, _):
        if added is None:
            return None
        shift = torch.zeros_like(value)
        shift[:, 1:] = added
        return value + shift

    with model.tapped([(SITE, add)]):
        logits = model.logits(ids)
    return torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")


def test_cross_entropies_of_several_arms_are_those_of_single_runs(tiny: LanguageModel) -> None:
    vector = vector_of(scale=3.0)
    edits = [(), vector.interventions(0.5), vector.interventions(-2.0)]
    found = cross_entropies(tiny, TEXTS, edits)
    for value, strength in zip(found, (None, 0.5, -2.0), strict=True):
        added = None if strength is None else strength * vector.vector
        expected = torch.cat([by_hand(tiny, text, added) for text in TEXTS]).mean()
        assert value == pytest.approx(float(expected), rel=1e-4)
    changes = ce_changes(tiny, vector, [0.5, -2.0], TEXTS)
    assert changes == pytest.approx([found[1] - found[0], found[2] - found[0]])


def test_strengths_report_both_measures(tiny: LanguageModel) -> None:
    vector = vector_of(where=at(-1))
    (found,) = strengths_of(tiny, vector, [2.0], prompts=TEXTS, neutral=TEXTS)
    assert found.rho == pytest.approx(2.0 * vector.norm / median_norm(tiny, vector, TEXTS))
    assert found.ce_change == pytest.approx(ce_changes(tiny, vector_of(), [2.0], TEXTS)[0])
    with pytest.raises(InterventionError, match="no neutral text"):
        strengths_of(tiny, vector, [2.0], prompts=TEXTS, neutral=[])
