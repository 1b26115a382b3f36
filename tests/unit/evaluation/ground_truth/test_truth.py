"""The synthetic truth: frequencies, hierarchy, the map from codes to activations, the stream."""

import json

import pytest
import torch

from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.evaluation.ground_truth import GroundTruth, GroundTruthConfig, GroundTruthStream

SMALL = {"num_features": 40, "width": 16, "trees": 3, "branching": 2, "depth": 2, "l0": 3.0}


def truth(**changes: object) -> GroundTruth:
    return GroundTruth(GroundTruthConfig(**(SMALL | changes)))  # type: ignore[arg-type]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_default_has_a_thousand_features_in_128_dimensions() -> None:
    made = GroundTruth()
    assert made.read.shape == (1024, 128)
    assert int((made.hierarchy.parent >= 0).sum()) == 32 * (4 + 16)
    assert float(made.hierarchy.frequency.sum()) == pytest.approx(made.config.l0)
    assert made.read.norm(dim=1).tolist() == pytest.approx([1.0] * 1024)


def test_frequencies_are_as_stated() -> None:
    made = truth()
    firing = made.sample(60_000, generator()).firing
    found = firing.double().mean(dim=0)
    expected = made.hierarchy.frequency
    deviation = (expected * (1 - expected) / len(firing)).sqrt()
    assert bool(((found - expected).abs() < 5 * deviation).all())


def test_zipf_holds_for_roots_and_lone_features() -> None:
    made = truth(zipf=1.0, num_features=60, l0=1.5)
    above = made.hierarchy.parent < 0
    ordered = made.hierarchy.frequency[above].sort(descending=True).values
    ranks = torch.arange(1, len(ordered) + 1)
    torch.testing.assert_close(ordered * ranks, ordered[:1].expand(len(ordered)))


def test_children_need_their_parent_and_exclude_each_other() -> None:
    made = truth()
    firing = made.sample(20_000, generator(1)).firing
    hierarchy = made.hierarchy
    children = (hierarchy.parent >= 0).nonzero().flatten()
    assert len(children) == 3 * (2 + 4)
    assert bool((firing[:, children] <= firing[:, hierarchy.parent[children]]).all())
    for siblings in hierarchy.children[hierarchy.children[:, 0] >= 0]:
        assert int(firing[:, siblings].sum(dim=1).max()) == 1
    root = firing[:, 0]
    share = firing[root][:, hierarchy.children[0]].any(dim=1).double().mean()
    assert float(share) == pytest.approx(0.8, abs=0.03)


def test_descent_is_the_transitive_closure_of_parents() -> None:
    hierarchy = truth().hierarchy
    below = hierarchy.descends()
    child = int(hierarchy.children[0, 1])
    grandchild = int(hierarchy.children[child, 0])
    assert below[child, 0] and below[grandchild, child] and below[grandchild, 0]
    assert not below[0, child] and not below[0, 0] and not below[grandchild, 1]
    assert int(below.sum()) == 3 * (2 + 4 * 2)


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_activations_are_the_codes_through_the_known_map(kind: str) -> None:
    made = truth(kind=kind, width_out=None if kind == "sae" else 9)
    sample = made.sample(200, generator())
    codes = sample.codes.dense()
    torch.testing.assert_close(sample.x, codes @ made.read)
    torch.testing.assert_close(sample.y, codes @ made.write)
    assert bool((codes[sample.firing] >= 0.1).all())
    assert sample.y.shape[1] == (16 if kind == "sae" else 9)
    assert (made.read_site == made.write_site) == (kind == "sae")


def test_noise_is_read_and_by_an_sae_written_too() -> None:
    made = truth(noise=0.5)
    sample = made.sample(4_000, generator())
    left = sample.x - sample.codes.dense() @ made.read
    assert float(left.std()) == pytest.approx(0.5, rel=0.02)
    assert sample.y is sample.x


def test_another_seed_is_another_truth_and_the_same_the_same() -> None:
    assert truth().read.equal(truth().read)
    assert not truth().read.equal(truth(seed=1).read)


def test_a_stream_goes_on_where_its_state_was_taken() -> None:
    made = truth(kind="transcoder")
    stream = GroundTruthStream(made, batch_tokens=32, seed=3)
    next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = next(stream)
    resumed = GroundTruthStream(made, batch_tokens=32, seed=3)
    resumed.load_state_dict(state)
    found = next(resumed)
    assert set(found.values) == {Site("mlp_in", 0), Site("mlp_out", 0)}
    for site, values in expected.values.items():
        assert found.values[site].equal(values)
    assert found.tokens.tolist() == list(range(32, 64))
    other = next(GroundTruthStream(made, batch_tokens=32, seed=4))
    assert not other.values[Site("mlp_in", 0)].equal(expected.values[Site("mlp_in", 0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "clt"}, "unknown kind 'clt'"),
        ({"width_out": 9}, "an SAE writes the width 16 that it reads"),
        ({"width": 0}, "width is 0"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"child_share": 1.5}, "child_share is 1.5"),
        ({"trees": 6}, "6 trees of 7 features do not fit into num_features 40"),
        ({"l0": 30.0}, "the most frequent feature would be active at"),
    ],
)
def test_settings_that_make_no_truth_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        truth(**changes)


def test_a_stream_of_no_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_tokens is 0"):
        GroundTruthStream(truth(), batch_tokens=0)
