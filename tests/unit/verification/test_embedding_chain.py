"""Chain-of-Embedding against a loop over layers, and what moves no score."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import DataError
from pellucid.verification.reading.embedding_chain import EMBEDDING_CHAIN, embedding_chain_scores


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return math.acos(max(-1.0, min(1.0, a @ b / math.sqrt((a @ a) * (b @ b)))))


def by_hand(hidden: np.ndarray) -> dict[str, float]:
    """The paper's sums, a layer at a time."""
    h = [np.mean(list(layer), axis=0) for layer in hidden]
    moved = [math.dist(b, a) / math.dist(h[-1], h[0]) for a, b in itertools.pairwise(h)]
    turned = [angle(b, a) / angle(h[-1], h[0]) for a, b in itertools.pairwise(h)]
    real = sum(m * math.cos(a) for m, a in zip(moved, turned, strict=True)) / len(moved)
    imaginary = sum(m * math.sin(a) for m, a in zip(moved, turned, strict=True)) / len(moved)
    momentum, curvature = [], []
    for token in range(hidden.shape[1]):
        steps = np.diff(hidden[:, token], axis=0)
        whole = math.dist(hidden[-1, token], hidden[0, token])
        momentum += [0.5 * (step @ step) / whole**2 for step in steps]
        curvature += [angle(b, a) for a, b in itertools.pairwise(steps)]
    kinetic, curved = float(np.mean(momentum)), float(np.mean(curvature))
    return {
        "coe_r": sum(turned) / len(turned) - sum(moved) / len(moved),
        "coe_c": -math.sqrt(real**2 + imaginary**2),
        "kinetics_momentum": -kinetic,
        "kinetics_curvature": curved,
        "kinetics_energy": curved - kinetic,
    }


@given(st.integers(3, 6), st.integers(1, 5), st.integers(2, 8), st.integers(0, 10_000))
def test_every_score_is_its_formula(places: int, tokens: int, width: int, seed: int) -> None:
    hidden = np.random.default_rng(seed).normal(size=(places, tokens, width))
    found, expected = embedding_chain_scores(torch.tensor(hidden)), by_hand(hidden)
    assert set(found) == set(expected) == set(EMBEDDING_CHAIN)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-7), name


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_scale_rotation_and_the_order_of_tokens_change_nothing(seed: int, by: float) -> None:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(4, 3, 5))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    same = by * hidden[:, rng.permutation(3)] @ rotation
    first, second = (embedding_chain_scores(torch.tensor(each)) for each in (hidden, same))
    assert first == {name: pytest.approx(value, abs=1e-6) for name, value in second.items()}


def test_a_straight_even_path_has_the_least_of_everything() -> None:
    """Momentum of L equal parts is 1 / (2 L^2), nothing curves, and each M is 1 / L."""
    start, way = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    hidden = torch.tensor(np.stack([start + way * part / 4 for part in range(5)]))[:, None]
    found = embedding_chain_scores(hidden)
    assert found["kinetics_momentum"] == pytest.approx(-1 / 32)
    assert found["kinetics_curvature"] == pytest.approx(0, abs=1e-6)


def test_a_state_that_never_moves_scores_nought() -> None:
    found = embedding_chain_scores(torch.ones(4, 2, 3))
    assert all(value == pytest.approx(0, abs=1e-6) for value in found.values())
    assert all(math.isfinite(v) for v in embedding_chain_scores(torch.zeros(4, 2, 3)).values())


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 0, 4), (3, 4)])
def test_too_little_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"give \[layers \+ 1, tokens, width\]"):
        embedding_chain_scores(torch.zeros(shape))
