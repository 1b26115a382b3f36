"""Vectors from contrast, against values read one prompt at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import ConfigError, InterventionError, PromptError, SiteError
from pellucid.core.types import Site
from pellucid.interventions.run import run
from pellucid.interventions.steering.contrast import (
    CONTRASTS,
    actadd,
    actadd_by_position,
    caa,
    mean_difference,
    principal_direction,
    repe_pca,
)
from pellucid.interventions.steering.reading import values_at
from pellucid.models.model import LanguageModel

SITE = Site("resid_post", 1)
POSITIVE = ["w5 w6 w7", "w8", "w9 w10 w11 w12", "w5 w20"]
NEGATIVE = ["w15 w6", "w18 w30 w31", "w19", "w5 w21"]


def alone(model: LanguageModel, text: str, site: Site = SITE) -> torch.Tensor:
    """[S, d] of one prompt, unpadded."""
    return model.activations(model.encode(text)[None], [site])[site][0]


def differences(model: LanguageModel) -> torch.Tensor:
    pairs = zip(POSITIVE, NEGATIVE, strict=True)
    return torch.stack([alone(model, a)[-1] - alone(model, b)[-1] for a, b in pairs])


def test_values_are_those_of_single_prompts(tiny: LanguageModel) -> None:
    for position in (-1, 1, 0):
        found = values_at(tiny, POSITIVE, [SITE], position)[SITE]
        expected = torch.stack([alone(tiny, text)[position] for text in POSITIVE])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    mean = values_at(tiny, POSITIVE, [SITE], "mean")[SITE]
    expected = torch.stack([alone(tiny, text)[1:].mean(0) for text in POSITIVE])
    torch.testing.assert_close(mean, expected, atol=1e-5, rtol=1e-4)


def test_caa_is_the_mean_paired_difference(tiny: LanguageModel) -> None:
    vector = caa(tiny, POSITIVE, NEGATIVE, "resid_post@1")
    torch.testing.assert_close(vector.vector, differences(tiny).mean(0), atol=1e-5, rtol=1e-4)
    assert vector.method == "caa"
    assert vector.provenance["model"] == tiny.fingerprint()


def test_mean_difference_takes_any_numbers(tiny: LanguageModel) -> None:
    vector = mean_difference(tiny, POSITIVE[:3], NEGATIVE[:1], SITE, position="mean")
    high = torch.stack([alone(tiny, text)[1:].mean(0) for text in POSITIVE[:3]]).mean(0)
    expected = high - alone(tiny, NEGATIVE[0])[1:].mean(0)
    torch.testing.assert_close(vector.vector, expected, atol=1e-5, rtol=1e-4)


def test_repe_is_the_leading_eigenvector_of_the_differences(tiny: LanguageModel) -> None:
    vector = repe_pca(tiny, POSITIVE, NEGATIVE, SITE).vector.double().numpy()
    d = differences(tiny).double().numpy()
    leading = np.linalg.eigh(d.T @ d)[1][:, -1]
    assert abs(vector @ leading) == pytest.approx(1.0, abs=1e-4)
    assert np.sign(d @ vector).sum() >= 0


@given(
    direction=st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=5, max_size=5),
    signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=9),
)
def test_the_principal_direction_of_a_planted_one(
    direction: list[float], signs: list[float]
) -> None:
    v = torch.tensor(direction)
    if v.norm() < 0.1 or sum(signs) == 0:
        return
    found = principal_direction(torch.tensor(signs)[:, None] * v)
    expected = v / v.norm() * (1.0 if sum(signs) > 0 else -1.0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_actadd_reads_the_last_token_of_either(tiny: LanguageModel) -> None:
    expected = alone(tiny, "w5 w6 w7")[-1] - alone(tiny, "w8")[-1]
    vector = actadd(tiny, "w5 w6 w7", "w8", SITE)
    torch.testing.assert_close(vector.vector, expected, atol=1e-5, rtol=1e-4)


def test_actadd_by_position_pads_the_shorter_text(tiny: LanguageModel) -> None:
    found = actadd_by_position(tiny, "w5 w6 w7", "w8", SITE)
    assert [part.where.positions for part in found.parts] == [(1,), (2,), (3,)]
    long, short = alone(tiny, "w5 w6 w7"), alone(tiny, "w8")
    torch.testing.assert_close(found.parts[0].vector, long[1] - short[1], atol=1e-5, rtol=1e-4)
    padded = torch.tensor([[*tiny.encode("w8").tolist(), 0, 0]])
    expected = long[3] - tiny.activations(padded, [SITE])[SITE][0, 3]
    torch.testing.assert_close(found.parts[2].vector, expected, atol=1e-5, rtol=1e-4)
    receipt = run(tiny, ["w30 w31 w32 w33"], found.interventions(1.0)).receipt
    assert receipt.tokens_edited == 3


def test_bad_contrasts(tiny: LanguageModel) -> None:
    with pytest.raises(InterventionError, match="no positive texts"):
        caa(tiny, [], NEGATIVE, SITE)
    with pytest.raises(InterventionError, match="no negative texts"):
        mean_difference(tiny, POSITIVE, [], SITE)
    with pytest.raises(InterventionError, match="4 positive and 1 negative"):
        caa(tiny, POSITIVE, NEGATIVE[:1], SITE)
    with pytest.raises(InterventionError, match="at least 2 pairs"):
        repe_pca(tiny, POSITIVE[:1], NEGATIVE[:1], SITE)
    for method in CONTRASTS:
        with pytest.raises(InterventionError, match="not zero"):
            CONTRASTS[method](tiny, POSITIVE, POSITIVE, SITE)
    with pytest.raises(InterventionError, match="texts that differ"):
        actadd_by_position(tiny, "w5", "w5", SITE)
    with pytest.raises(InterventionError, match="position -9 is beyond a prompt of 2 tokens"):
        caa(tiny, POSITIVE, NEGATIVE, SITE, position=-9)
    with pytest.raises(SiteError, match="9"):
        caa(tiny, POSITIVE, NEGATIVE, "resid_post@9")
    with pytest.raises(PromptError, match="unheard"):
        caa(tiny, ["unheard"], ["w5"], SITE)
    with pytest.raises(ConfigError, match=r"unknown steering method 'magic'.*caa"):
        CONTRASTS["magic"]
