import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from pellucid.core.errors import ConfigError, DataError
from pellucid.core.places import FeatureSite
from pellucid.probes.controls import Part, scored
from pellucid.probes.features import fit_features, rank
from pellucid.probes.fit import fit, logistic


def blobs(count: int = 240, width: int = 12, gap: float = 2.0, seed: int = 0):
    """Two Gaussian clouds whose spreads differ by dimension, in 24 groups."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.4
    x = rng.standard_normal((count, width)) * np.linspace(0.1, 5, width) + 3
    x[labels, 0] += gap * 0.1
    return x, labels, [str(i % 24) for i in range(count)]


def test_logistic_minimises_its_loss_on_standardised_values() -> None:
    x, labels, _ = blobs()
    penalty = 0.1
    z = (x - x.mean(0)) / x.std(0)
    sign = np.where(labels, 1.0, -1.0)
    weight = np.where(labels, 0.5 / labels.mean(), 0.5 / (~labels).mean())

    def loss(theta):
        margin = sign * (z @ theta[:-1] + theta[-1])
        return penalty * (weight * np.logaddexp(0, -margin)).sum() + theta[:-1] @ theta[:-1] / 2

    best = minimize(loss, np.zeros(x.shape[1] + 1), tol=1e-12).x
    line = logistic(x, labels, penalty)
    np.testing.assert_allclose(line(x), z @ best[:-1] + best[-1], atol=5e-3)


def test_mean_difference_is_the_closed_form_and_zero_halfway() -> None:
    x, labels, groups = blobs()
    line = fit(x, labels, groups, method="mean_difference")
    high, low = x[labels].mean(0), x[~labels].mean(0)
    np.testing.assert_allclose(line.vector, high - low)
    assert line((high + low)[None] / 2)[0] == pytest.approx(0, abs=1e-9)


def test_a_constant_dimension_gets_no_weight() -> None:
    x, labels, groups = blobs()
    x[:, 3] = 7.0
    assert fit(x, labels, groups).vector[3] == 0


def test_controls_fall_to_chance_on_held_out_groups_and_the_probe_does_not() -> None:
    x, labels, groups = blobs(count=480, width=40, gap=40)
    train = [i for i, g in enumerate(groups) if int(g) < 16]
    test = [i for i, g in enumerate(groups) if int(g) >= 16]
    part = [Part(x[rows], labels[rows], [groups[i] for i in rows]) for rows in (train, test)]
    found = scored(*part)
    assert found.auroc.low > 0.95
    assert abs(found.shuffled - 0.5) < 0.08
    assert found.shuffled_in_training > 0.55
    assert abs(found.random - 0.5) < 0.2
    assert found.to_json()["auroc"] == found.auroc.value


def test_group_shortcuts_do_not_help() -> None:
    """Every row carries its group's mark and the groups' labels are coin flips."""
    rng = np.random.default_rng(1)
    member = np.arange(400) % 40
    labels = (rng.random(40) < 0.5)[member]
    x = np.eye(40)[member] + 0.01 * rng.standard_normal((400, 40))
    groups = [str(g) for g in member]
    test = member < 13
    part = [Part(x[rows], labels[rows], [g for g, r in zip(groups, rows, strict=True) if r])
            for rows in (~test, test)]  # fmt: skip
    found = scored(*part)
    assert found.auroc.low < 0.5 < found.auroc.high


def test_the_feature_probe_finds_the_planted_pair_and_no_more() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(300) < 0.5
    layers = {
        n: torch.tensor(rng.random((300, 30)) * (rng.random((300, 30)) < 0.2)) for n in (0, 2)
    }
    half = labels & (rng.random(300) < 0.5)
    layers[0][half, 7] = 4.0
    layers[2][labels & ~half, 11] = 4.0
    found = fit_features(layers, labels, [str(i % 20) for i in range(300)])
    assert set(found.features) == {FeatureSite(0, 7), FeatureSite(2, 11)}
    assert (found.line.vector > 0).all()
    scores = found.scores(layers)
    assert (scores[labels] > 0).mean() > 0.9
    assert found.to_json()["features"][0]["feature"] in ("feature@0[7]", "feature@2[11]")


def test_rank_leaves_out_what_never_fires() -> None:
    x = np.array([[0, 1.0, 2.0], [0, 3.0, 2.5]], dtype=np.float32)
    assert rank(x, np.array([True, False])).tolist() in ([1, 2], [2, 1])


def test_bad_input_is_refused() -> None:
    x, labels, groups = blobs()
    with pytest.raises(ConfigError, match="method is 'svm'"):
        fit(x, labels, groups, method="svm")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="0 of 240 examples are positive"):
        fit(x, labels & False, groups)
    x[0, 0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fit(x, labels, groups)
