"""Measures of recovery on dictionaries made by hand, whose answers are known."""

from itertools import permutations

import pytest
import torch
from torch.nn.functional import normalize

from pellucid.core.types import SparseCodes
from pellucid.dictionaries import SAE, Dictionary
from pellucid.dictionaries.activations import JumpReLU
from pellucid.evaluation.absorption import aligned_above, strongest_writer
from pellucid.evaluation.ground_truth import (
    GroundTruth,
    GroundTruthConfig,
    GroundTruthStream,
    Recovery,
    measure_recovery,
)
from pellucid.evaluation.ground_truth.baselines import (
    pca_dictionary,
    random_dictionary,
    truth_dictionary,
)
from pellucid.evaluation.ground_truth.recovery import matched_cosines
from pellucid.training import TrainConfig
from pellucid.training.layer import LayerTraining

ROOT = 0
CHILDREN = (1, 2)


def orthogonal_truth() -> GroundTruth:
    """One root with two children and seven lone features, each along an axis of its own."""
    truth = GroundTruth(
        GroundTruthConfig(
            num_features=10, width=64, trees=1, branching=2, depth=1, zipf=0.2, l0=2.0
        )
    )
    truth.read = truth.write = torch.eye(10, 64)
    return truth


def sae(truth: GroundTruth, encoder: torch.Tensor, decoder: torch.Tensor) -> Dictionary:
    """Latents that fire wherever their pre-activation is positive."""
    return SAE(
        W_enc=encoder,
        b_enc=torch.zeros(len(encoder)),
        W_dec=decoder,
        b_dec=torch.zeros(decoder.shape[1]),
        activation=JumpReLU(torch.full((len(encoder),), 1e-3)),
        read_site=truth.read_site,
        write_site=truth.write_site,
    )


def measured(truth: GroundTruth, dictionary: Dictionary) -> Recovery:
    return measure_recovery(dictionary, truth, tokens=4_000)


def test_the_truth_itself_is_recovered_whole() -> None:
    truth = orthogonal_truth()
    found = measured(truth, sae(truth, truth.read.clone(), 3 * truth.write))
    assert (found.mmcs, found.mcc, found.recovered) == pytest.approx((1, 1, 1))
    assert (found.latent_f1, found.feature_f1) == pytest.approx((1, 1))
    assert (found.split, found.absorbed, found.dead, found.parents) == (0, 0, 0, 1)
    assert measured(truth, sae(truth, truth.read.clone(), truth.write)).fvu == pytest.approx(0)


def test_half_of_the_truth_and_noise_latents_are_counted_as_such() -> None:
    truth = orthogonal_truth()
    rows = torch.cat([truth.read[:5], torch.eye(64)[10:15]])  # the last five never fire
    found = measured(truth, sae(truth, rows, rows.clone()))
    assert found.recovered == 0.5
    assert found.mmcs == found.mcc == pytest.approx(0.5)
    assert found.dead == 0.5
    assert found.latent_f1 == pytest.approx(0.5)
    assert 0.5 < found.feature_f1 < 0.7


def test_a_latent_silenced_where_its_child_fires_is_absorbed() -> None:
    """The root's latent skips tokens of child 1; that child's latent writes the root as well."""
    truth = orthogonal_truth()
    encoder, decoder = truth.read.clone(), truth.write.clone()
    encoder[ROOT] -= 100 * truth.read[CHILDREN[0]]
    decoder[CHILDREN[0]] += truth.write[ROOT]
    found = measured(truth, sae(truth, encoder, decoder))
    hierarchy = truth.hierarchy
    expected = float(hierarchy.frequency[CHILDREN[0]] / hierarchy.frequency[ROOT])
    assert found.parents == 1
    assert 0.3 < expected < 0.6
    assert found.absorbed == pytest.approx(expected, abs=0.04)
    # What is left of the root's latent tells child 2 better than the root: that one is split.
    assert found.split == pytest.approx(1 / 9)


def test_a_latent_that_is_silent_without_anyone_covering_is_not_absorbed() -> None:
    truth = orthogonal_truth()
    encoder = truth.read.clone()
    encoder[ROOT] -= 100 * truth.read[CHILDREN[0]]
    found = measured(truth, sae(truth, encoder, truth.write.clone()))
    assert found.parents == 1
    assert found.absorbed == 0
    # A lone feature that writes along the root is not below it.
    decoder = truth.write.clone()
    decoder[5] += truth.write[ROOT]
    assert measured(truth, sae(truth, encoder, decoder)).absorbed == 0


def test_two_latents_that_share_a_feature_split_it() -> None:
    """One fires with feature 5 where 6 is silent, one where both are active."""
    truth = orthogonal_truth()
    truth.hierarchy.frequency[[5, 6]] = 0.5
    encoder = torch.cat([truth.read, truth.read[5:6]])
    encoder[5] -= 100 * truth.read[6]
    encoder[10] = truth.read[5] + truth.read[6]
    dictionary = sae(truth, encoder, torch.cat([truth.write, truth.write[5:6]]))
    with torch.no_grad():
        dictionary.b_enc[10] = -1.6  # only both together reach it
    found = measured(truth, dictionary)
    assert found.split == pytest.approx(1 / 10)
    assert found.mcc == pytest.approx(1)


def test_the_matching_is_the_best_of_all() -> None:
    cosines = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    best = max(
        sum(float(cosines[row, column]) for row, column in enumerate(chosen))
        for chosen in permutations(range(6), 4)
    )
    assert float(matched_cosines(cosines).sum()) == pytest.approx(best)
    assert len(matched_cosines(cosines.T)) == 4


def test_the_strongest_writer_is_active_and_writes_most() -> None:
    codes = SparseCodes(
        torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        torch.tensor([[0, 1, 2], [0, 1, 2], [3, 0, 0]]),
        4,
    )
    written = torch.tensor([[0.1, 0.1, 9.0], [0.5, 0.0, 9.0], [9.0, 9.0, 9.0], [0.0, 0.0, -1.0]])
    cases = torch.tensor([0, 1, 2])
    assert strongest_writer(codes, cases, written, cases).tolist() == [1, -1, 3]
    nothing = torch.tensor([], dtype=torch.int64)
    assert strongest_writer(codes, nothing, written, nothing).shape == (0,)


def test_random_directions_are_rarely_aligned() -> None:
    rows = normalize(torch.randn(2_000, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    share = float(((rows @ rows[0])[1:] > aligned_above(64)).double().mean())
    assert share < 0.005


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_baselines_are_a_floor_and_a_ceiling(kind: str) -> None:
    truth = GroundTruth(
        GroundTruthConfig(num_features=64, width=32, trees=4, branching=3, depth=1, kind=kind)
    )
    whole = measured(truth, truth_dictionary(truth, k=5))
    drawn = measured(truth, random_dictionary(truth, latents=64, k=5))
    components = measured(truth, pca_dictionary(truth, k=5))
    assert whole.mcc == whole.recovered == pytest.approx(1)
    assert drawn.recovered == components.recovered == 0
    assert drawn.mcc < 0.6 and components.mcc < 0.6
    for floor in (drawn, components):
        assert floor.feature_f1 < whole.feature_f1
        assert whole.fvu < floor.fvu < 1.01


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_our_trainer_recovers_features_that_are_not_in_superposition(kind: str) -> None:
    truth = GroundTruth(
        GroundTruthConfig(num_features=24, width=32, trees=0, zipf=0.0, l0=3.0, kind=kind)
    )
    config = TrainConfig(
        kind=kind, num_features=32, k=3, batch_tokens=256, learning_rate=2e-2, warmup_steps=10
    )
    stream = GroundTruthStream(truth, batch_tokens=256)
    training = None
    for _ in range(120):
        values = next(stream).values
        x, y = values[truth.read_site], values[truth.write_site]
        training = training or LayerTraining.start(
            config,
            x,
            y,
            read_site=truth.read_site,
            write_site=truth.write_site,
            total_tokens=120 * 256,
            generator=torch.Generator().manual_seed(0),
        )
        training.step(x, y)
    assert training is not None
    found = measured(truth, training.dictionary())
    assert found.recovered > 0.9, found
    assert found.feature_f1 > 0.7
