"""Synthetic tables of steps: noise, with a signal planted in the readings of some rungs."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from pellucid.verification.methods.method import Rung
from pellucid.verification.methods.registry import MOVING, SURE
from pellucid.verification.steps.step_set import Ragged, StepSet

OPERATORS = ("+", "-", "*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the readings are."""

    sites: int = 3
    width: int = 12
    features: int = 400
    active: int = 24


SMALL = Sizes()


def synthetic_steps(
    count: int,
    *,
    planted: Collection[Rung] = (),
    share: float = 0.3,
    seed: int = 0,
    sizes: Sizes = SMALL,
) -> StepSet:
    """Steps with every reading that a method may want.

    Args:
        count: how many steps, four to a question.
        planted: rungs whose readings tell wrong from right; none by default.
        share: of wrong steps.
        seed: of everything; the planted signal itself is the same for all seeds.
        sizes: of the readings.
    """
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(np.arange(count) < round(share * count))
    tell = np.where(wrong, 1.0, -1.0)
    texts = [_text(rng, bool(bad) if "text" in planted else None) for bad in wrong]
    tokens = rng.integers(3, 9, count)
    if "length" in planted:
        tokens = np.where(wrong, rng.integers(9, 15, count), tokens)
    number = tokens - 3 if "length" in planted else rng.integers(0, 5, count)
    columns = {
        "wrong": wrong,
        "wrong_so_far": wrong,
        "first_error": wrong,
        "error": np.where(wrong, "slip", ""),
        "group": np.array([f"q{seed}-{n // 4}" for n in range(count)]),
        "source": np.array(["plain"] * count),
        "language": np.array(["arithmetic"] * count),
        "chain": np.arange(count) // 4,
        "number": number,
        "operators": rng.integers(3, 6, count),
        "remaining": rng.integers(1, 6, count),
        "start": rng.integers(8, 60, count),
        "tokens": tokens,
        "text": np.array([after for _, after in texts]),
        "before": np.array([before for before, _ in texts]),
        "weight": np.where(wrong, 1.0, rng.integers(1, 3, count)),
    }
    columns |= _scores(SURE, rng, tell * ("confidence" in planted))
    columns |= _scores(MOVING, rng, tell * ("hidden" in planted))
    names = [f"error_norm.{n}.{how}" for n in range(2) for how in ("mean", "max", "answer")]
    columns |= _scores(names, rng, tell * ("error" in planted))
    return StepSet(
        columns=columns,
        **_states(rng, tell * ("hidden" in planted), tokens, sizes),
        bags={
            name: _bag(rng, wrong & (name in planted), sizes) for name in ("activations", "direct")
        },
    )


def _text(rng: np.random.Generator, wrong: bool | None) -> tuple[str, str]:
    """A step; a wrong one drops the minus of a product, a right one multiplies small numbers."""
    wrong = bool(rng.random() < 0.5) if wrong is None else wrong
    first, second, kept = rng.integers(2, 10, 3)
    operator = "*" if wrong else rng.choice(OPERATORS[:2])
    before = f"( ( {first} {operator} {second} ) + {kept} )"
    return before, f"( {first + second} + {kept} )"


def _scores(names: list[str], rng: np.random.Generator, tell: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.exp(rng.normal(size=len(tell)) + 1.5 * tell) for name in names}


def _states(
    rng: np.random.Generator, tell: np.ndarray, tokens: np.ndarray, sizes: Sizes
) -> dict[str, dict]:
    """A direction in the middle site: at every token, in the means, and before the answer."""
    along = np.zeros((sizes.sites, sizes.width))
    along[sizes.sites // 2] = np.random.default_rng(99).normal(size=sizes.width)
    along /= np.linalg.norm(along)
    shape = (len(tell), sizes.sites, sizes.width)
    arrays = {
        name: (rng.normal(size=shape) + 2.0 * tell[:, None, None] * along).astype(np.float32)
        for name in ("hidden", "hidden_last", "hidden_answer")
    }
    step = np.repeat(np.arange(len(tell)), tokens)
    states = rng.normal(size=(len(step), *shape[1:])) + 2.0 * tell[step, None, None] * along
    return {
        "arrays": arrays,
        "ragged": {"hidden_tokens": Ragged(states.astype(np.float16), tokens.astype(np.int64))},
    }


def _bag(rng: np.random.Generator, wrong: np.ndarray, sizes: Sizes) -> csr_matrix:
    """Random features; the last ten are active in wrong steps only where a signal is planted."""
    count, kept = len(wrong), sizes.features - 10
    chosen = np.sort(rng.random((count, kept)).argsort(1)[:, : sizes.active], axis=1)
    told = kept + np.argsort(rng.random((count, 10)), axis=1)[:, :5]
    columns = np.hstack([chosen, told])
    values = rng.exponential(size=columns.shape) + 0.1
    there = np.ones(columns.shape, dtype=bool)
    there[:, sizes.active :] = wrong[:, None]
    rows = np.repeat(np.arange(count), columns.shape[1]).reshape(columns.shape)
    return csr_matrix(
        (values[there].astype(np.float32), (rows[there], columns[there])),
        shape=(count, sizes.features),
    )
