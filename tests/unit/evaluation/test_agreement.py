"""Scores of predictions against SciPy, and the bootstrap against theory."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr

from pellucid.evaluation.agreement import DocumentSums, bootstrap_intervals, log_probabilities
from pellucid.evaluation.rows import DocumentBatch

VOCAB = 7


def batch(ids: list[list[int]], text: list[list[int]], document: list[int]) -> DocumentBatch:
    read = torch.tensor(text, dtype=torch.bool)
    return DocumentBatch(
        ids=torch.tensor(ids), mask=read, text=read, document=torch.tensor(document)
    )


def test_sums_are_those_of_scipy_document_by_document() -> None:
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(3, 4, VOCAB, generator=generator)
    other = torch.randn(3, 4, VOCAB, generator=generator)
    rows = batch(
        [[0, 3, 4, 5], [0, 1, 2, 6], [0, 2, 0, 0]],
        [[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 0, 0]],
        [1, 0, 1],
    )
    sums = DocumentSums.zeros(2)
    sums.add(rows, log_probabilities(original), log_probabilities(other))

    expected = {name: [0.0, 0.0] for name in ("count", "nll", "kl", "same")}
    for row, document in enumerate([1, 0, 1]):
        for position in range(3):
            if not rows.text[row, position + 1]:
                continue
            p = log_softmax(original[row, position].double().numpy())
            q = log_softmax(other[row, position].double().numpy())
            expected["count"][document] += 1
            expected["nll"][document] -= float(q[rows.ids[row, position + 1]])
            expected["kl"][document] += float(rel_entr(np.exp(p), np.exp(q)).sum())
            expected["same"][document] += p.argmax() == q.argmax()
    for name, values in expected.items():
        assert getattr(sums, name).tolist() == pytest.approx(values, rel=1e-5), name


def test_kl_and_disagreement_of_a_model_with_itself_are_zero() -> None:
    logits = log_probabilities(torch.randn(2, 5, VOCAB))
    rows = batch([[1, 2, 3, 4, 5]] * 2, [[1, 1, 1, 1, 1]] * 2, [0, 1])
    sums = DocumentSums.zeros(2)
    sums.add(rows, logits, logits)
    assert sums.kl.tolist() == [0.0, 0.0]
    assert torch.equal(sums.same, sums.count)


def test_bootstrap_of_a_mean_is_near_its_normal_interval() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sums = {"value": values, "count": torch.ones(400, dtype=torch.float64)}
    low, high = bootstrap_intervals(
        sums, lambda s: {"mean": s["value"] / s["count"]}, seed=0, resamples=2000
    )["mean"]
    spread = 1.96 * float(values.std()) / math.sqrt(400)
    mean = float(values.mean())
    assert low == pytest.approx(mean - spread, abs=0.15 * spread)
    assert high == pytest.approx(mean + spread, abs=0.15 * spread)


def test_bootstrap_resamples_whole_documents() -> None:
    """A ratio that is the same in every document has no uncertainty, however long they are."""
    count = torch.tensor([1.0, 50.0, 7.0], dtype=torch.float64)
    figures = bootstrap_intervals(
        {"nll": 2 * count, "count": count}, lambda s: {"ce": s["nll"] / s["count"]}, seed=3
    )
    assert figures["ce"] == pytest.approx((2.0, 2.0))
