"""Free scores of a step against sums written out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import DataError
from pellucid.verification.reading.confidence import (
    ANSWER,
    CONFIDENCE,
    TEMPERATURES,
    confidence_scores,
)


def by_hand(logits: np.ndarray, ids: list[int]) -> dict[str, float]:
    """Every score in plain Python, token by token."""
    found: dict[str, list[float]] = {}
    for row, written in zip(logits.tolist(), ids, strict=True):

        def p(temperature: float, row: list[float] = row) -> list[float]:
            parts = [math.exp(each / temperature) for each in row]
            return [each / sum(parts) for each in parts]

        first, second = sorted(p(1), reverse=True)[:2]
        each = {
            "max_prob": 1 - first,
            "worst_max_prob": 1 - first,
            "perplexity": -math.log(p(1)[written]),
            "least_token": -math.log(p(1)[written]),
            "max_perplexity": -math.log(first),
            "entropy": -sum(q * math.log(q) for q in p(1)),
            "max_entropy": -sum(q * math.log(q) for q in p(1)),
            "margin": second - first,
            "least_margin": second - first,
        }
        for t in TEMPERATURES:
            each[f"max_prob_t{t:g}"] = 1 - max(p(t))
            each[f"energy_t{t:g}"] = -t * math.log(sum(math.exp(z / t) for z in row))
        for name, value in each.items():
            found.setdefault(name, []).append(value)
    worst = {"worst_max_prob", "least_token", "max_entropy", "least_margin"}
    return {
        name: max(values) if name in worst else sum(values) / len(values)
        for name, values in found.items()
        if name in CONFIDENCE
    }


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 10_000), st.data())
def test_every_score_is_its_formula(
    tokens: int, words: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(tokens, words))
    ids = rng.integers(words, size=tokens)
    low = data.draw(st.integers(0, tokens - 1))
    high = data.draw(st.integers(low + 1, tokens))
    found = confidence_scores(torch.tensor(logits), torch.tensor(ids), (low, high))
    whole = by_hand(logits, ids.tolist())
    answer = by_hand(logits[low:high], ids[low:high].tolist())
    expected = whole | {ANSWER + name: value for name, value in answer.items()}
    assert set(found) == set(expected) == {s + n for n in CONFIDENCE for s in ("", ANSWER)}
    alone = confidence_scores(torch.tensor(logits), torch.tensor(ids))
    assert alone == {name: found[name] for name in CONFIDENCE}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_a_surer_model_scores_lower_on_every_score() -> None:
    """All scores are turned the same way: higher is more likely wrong."""
    ids = torch.tensor([0, 0])
    sure, unsure = (torch.tensor([[size, 0.0, 0.0]] * 2) for size in (9.0, 1.0))
    low, high = confidence_scores(sure, ids), confidence_scores(unsure, ids)
    assert all(low[name] < high[name] for name in low)


def test_a_certain_model_in_half_precision_still_has_an_order() -> None:
    logits = torch.tensor([[30.0, 0.0]], dtype=torch.float16)
    more = confidence_scores(logits + torch.tensor([2.0, 0.0]), torch.tensor([0]))
    less = confidence_scores(logits, torch.tensor([0]))
    assert 0 < more["max_prob"] < less["max_prob"]
    assert 0 < more["perplexity"] < less["perplexity"]


def test_logits_of_minus_infinity_are_no_probability() -> None:
    logits = torch.tensor([[1.0, 0.0, -torch.inf]])
    found = confidence_scores(logits, torch.tensor([0]))
    assert all(math.isfinite(value) for value in found.values())
    shorter = confidence_scores(logits[:, :2], torch.tensor([0]))
    assert found["entropy"] == pytest.approx(shorter["entropy"])


@pytest.mark.parametrize(("tokens", "answer"), [(0, None), (3, (1, 1)), (3, (2, 4)), (3, (-1, 2))])
def test_what_does_not_fit_is_refused(tokens: int, answer: tuple[int, int] | None) -> None:
    with pytest.raises(DataError, match="answer of at least one token"):
        confidence_scores(torch.zeros(tokens, 4), torch.zeros(tokens, dtype=torch.long), answer)
