"""The settings of fine-tuning and its learning rate."""

from typing import Any

import pytest

from pellucid.core.errors import ConfigError
from pellucid.training.finetune import FinetuneConfig


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    config = FinetuneConfig(learning_rate=1.0, warmup_share=0.1)
    rates = [config.rate(step, 100) for step in range(100)]
    assert max(rates) == rates[10] == 1.0
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[-1] == pytest.approx(1 / 90)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_of_one_step_has_a_rate() -> None:
    assert FinetuneConfig(learning_rate=1.0).rate(0, 1) == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "mse"}, "unknown objective 'mse'; use one of kl, local"),
        ({"local_weight": -1}, "local_weight is -1"),
        ({"objective": "local", "local_weight": 0}, "leaves nothing to lower"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"warmup_share": 1.0}, "warmup_share is 1.0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**settings)
