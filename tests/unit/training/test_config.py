"""Settings: defaults by rule, and refusals that say what to do."""

import pytest

from pellucid.core.config import config_from_dict, config_to_dict
from pellucid.core.errors import ConfigError
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
        ({"kind": "clt"}, "kind 'clt' is not available yet; use one of transcoder, skip"),
        ({"kind": "vae"}, "unknown kind 'vae'; use one of transcoder, skip-transcoder, sae"),
        ({"activation": "batchtopk"}, "activation 'batchtopk' is not available yet; use one of to"),
        ({"activation": "gelu"}, "unknown activation 'gelu'; use one of topk"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"k": 0}, "k is 0; give a positive number"),
        ({"num_features": -3}, "num_features is -3"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"aux_coefficient": -0.1}, "aux_coefficient is -0.1; give 0 or"),
        ({"beta2": 1.5}, "beta2 is 1.5; give a number from 0 to 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; give a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_a_wrong_setting_is_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**setting)


def test_k_beyond_the_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 32 but there are only 8 features"):
        TrainConfig(expansion=2).features(d_out=4)
