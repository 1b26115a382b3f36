"""Sets of steps made by rule, whose wrong steps can be told by some columns and not by others."""

from typing import Any

import numpy as np

from pellucid.verification.steps.step_set import StepSet

SIGNAL, NOISE = "graph.answer.signal", "graph.answer.noise"


def made_steps(
    questions: int = 150, *, seed: int = 0, rate: float = 0.2, shift: float = 2.0, **columns: Any
) -> StepSet:
    """Questions of 2 to 5 steps; `graph.answer.signal` is `shift` higher in wrong steps.

    Every question also has its own level in `graph.answer.question`, so steps that share a question
    with training look known.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 6, size=questions)
    question = np.repeat(np.arange(questions), sizes)
    count = len(question)
    number = np.concatenate([np.arange(size) for size in sizes])
    wrong = rng.random(count) < rate
    signal = rng.normal(size=count) + shift * wrong
    made = {
        "wrong": wrong,
        "wrong_so_far": wrong,
        "first_error": wrong,
        "error": np.where(wrong, "slip", "").astype(object),
        "group": np.array([f"q{seed}-{n}" for n in question], dtype=object),
        "source": np.full(count, "made", dtype=object),
        "language": np.full(count, "arithmetic", dtype=object),
        "chain": question,
        "number": number,
        "operators": sizes[question],
        "remaining": sizes[question] - number,
        "start": 2 + 5 * number,
        "tokens": 3 + 2 * (sizes[question] - number),
        "text": np.array([f"step {n}" for n in number], dtype=object),
        "before": np.full(count, "question", dtype=object),
        "weight": np.ones(count),
        SIGNAL: signal,
        NOISE: rng.normal(size=count),
        "graph.answer.question": rng.normal(size=questions)[question],
        "free.doubt": -signal + rng.normal(size=count),
    }
    record = {"model": "model-a", "dictionaries": "dictionaries-a"}
    return StepSet(columns=made | columns, record=record)
