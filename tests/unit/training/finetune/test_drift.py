"""How far features moved, on cases counted by hand."""

from dataclasses import asdict

import pytest
import torch

from pellucid.core.types import SparseCodes
from pellucid.training.finetune.drift import DriftMeter, LayerDrift, Spread
from support.dictionaries import random_dictionary


def codes(rows: list[list[int]], num_features: int = 37) -> SparseCodes:
    """Features active at each token; padding of value 0 points at feature 0."""
    width = max(len(row) for row in rows)
    indices = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    values = torch.tensor([[1.0] * len(row) + [0.0] * (width - len(row)) for row in rows])
    return SparseCodes(values, indices, num_features)


def test_tokens_features_born_and_died_are_counted() -> None:
    dictionary = random_dictionary()
    meter = DriftMeter(dictionary, dictionary)
    meter.add(codes([[1, 2], [1, 3]]), codes([[1, 2], [2, 4]]))
    meter.add(codes([[1]]), codes([[1]]))
    drift = meter.result()
    # Jaccard: feature 1 at 2 of 3 tokens, 2 at 1 of 2, 3 and 4 at none.
    assert drift.same_tokens.mean == pytest.approx((2 / 3 + 1 / 2 + 0 + 0) / 4)
    assert drift.changed == 0.5
    assert (drift.born, drift.died) == (1, 1)
    assert drift.encoder_cosine.low == pytest.approx(1.0)


def test_directions_count_over_features_that_were_alive() -> None:
    before, after = random_dictionary(), random_dictionary()
    after.W_enc[5] *= -1
    after.W_dec[6] = 0
    after.W_dec[6, 0], before.W_dec[6] = 1.0, 0
    before.W_dec[6, 1] = 2.0
    meter = DriftMeter(before, after)
    meter.add(codes([[5, 6]]), codes([[5, 6]]))
    drift = meter.result()
    assert drift.encoder_cosine.mean == pytest.approx(0.0, abs=1e-6)
    assert drift.decoder_cosine.mean == pytest.approx(0.5)
    untouched = DriftMeter(before, after)
    untouched.add(codes([[1, 2]]), codes([[1, 2]]))
    assert untouched.result().encoder_cosine == Spread(
        low=pytest.approx(1.0), median=pytest.approx(1.0), mean=pytest.approx(1.0)
    )


def test_a_drift_survives_json() -> None:
    meter = DriftMeter(random_dictionary(), random_dictionary())
    meter.add(codes([[1]]), codes([[2]]))
    assert LayerDrift.from_json(asdict(meter.result())) == meter.result()
