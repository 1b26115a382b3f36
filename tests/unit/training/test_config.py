"""Settings: defaults by rule, and refusals that say what to do."""

from typing import get_args

import pytest

from pellucid.core.config import config_from_dict, config_to_dict
from pellucid.core.errors import ConfigError
from pellucid.training.activations import RULES
from pellucid.training.config import TrainConfig


def test_features_follow_the_width_unless_given() -> None:
    assert TrainConfig(expansion=4).features(d_out=48) == 192
    assert TrainConfig(num_features=100).features(d_out=48) == 100


def test_a_round_trip_through_a_dictionary() -> None:
    config = TrainConfig(kind="sae", k=7, learning_rate=1e-3)
    assert config_from_dict(TrainConfig, config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kind": "vae"}, "unknown kind 'vae'; use one of transcoder, skip-transcoder, sae"),
        ({"activation": "gelu"}, "unknown activation 'gelu'; use one of topk"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"k": 0}, "k is 0; give a positive number"),
        ({"num_features": -3}, "num_features is -3"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"aux_coefficient": -0.1}, "aux_coefficient is -0.1; give 0 or"),
        ({"beta2": 1.5}, "beta2 is 1.5; give a number from 0 to 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; give a positive number"),
        ({"average": 1.2}, "average is 1.2; give a number above 0 and below 1"),
        ({"prefixes": (8, 8)}, "prefixes are 8, 8; give positive numbers that rise"),
        ({"prefixes": (0, 8)}, "prefixes are 0, 8; give positive numbers that rise"),
        ({"sparsity": 0.1}, "sparsity is 0.1 but means nothing to topk; leave it out, or train ju"),
        ({"activation": "relu", "bandwidth": 1.0}, "bandwidth is 1.0 but means nothing to relu"),
        ({"cut_memory": 0.5}, "cut_memory is 0.5 but means nothing to topk; .* train batchtopk"),
        ({"activation": "relu", "sparsity": 0.0}, "sparsity is 0.0; give a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_a_wrong_setting_is_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**setting)


def test_k_beyond_the_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 32 but there are only 8 features"):
        TrainConfig(expansion=2).features(d_out=4)


def test_a_prefix_beyond_the_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="prefix 50 exceeds the 40 features; lower it or add"):
        TrainConfig(num_features=40, k=4, prefixes=(10, 50)).features(d_out=4)


def test_a_prefix_that_is_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="prefix 40 is all 40 features, which reconstruct anyway"):
        TrainConfig(num_features=40, k=4, prefixes=(40,)).features(d_out=4)


def test_prefixes_part_the_features() -> None:
    assert TrainConfig(prefixes=(3, 10)).parts(12) == [(0, 3), (3, 10), (10, 12)]
    assert TrainConfig(prefixes=(3, 12)).parts(12) == [(0, 3), (3, 12)]
    assert TrainConfig().parts(12) == [(0, 12)]


def test_every_activation_that_can_be_named_has_a_rule() -> None:
    assert set(get_args(TrainConfig.__annotations__["activation"])) == set(RULES)
