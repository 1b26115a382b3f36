"""Adam against torch's own, whole and by rows; the learning rate's course."""

import pytest
import torch

from pellucid.training.config import TrainConfig
from pellucid.training.optim import adam_update, learning_rate


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_adam_by_rows_is_torch_adam(rows: int) -> None:
    config = TrainConfig(beta1=0.8, beta2=0.95, epsilon=1e-6)
    generator = torch.Generator().manual_seed(0)
    parameter = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    oracle = parameter.clone().requires_grad_()
    optimizer = torch.optim.Adam([oracle], lr=0.01, betas=(0.8, 0.95), eps=1e-6)
    first, second = torch.zeros_like(parameter), torch.zeros_like(parameter)
    for step in range(5):
        gradient = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        oracle.grad = gradient.clone()
        optimizer.step()
        for start in range(0, 7, rows):
            block = slice(start, start + rows)
            adam_update(
                parameter[block],
                gradient[block],
                first[block],
                second[block],
                config=config,
                rate=0.01,
                step=step,
            )
    torch.testing.assert_close(parameter, oracle.detach())


def test_the_peak_rate_falls_with_the_square_root_of_the_features() -> None:
    config = TrainConfig(warmup_steps=0, decay_share=0.0)
    assert learning_rate(config, 0, 100, 2**14) == pytest.approx(1e-3)
    assert learning_rate(config, 0, 100, 2**16) == pytest.approx(5e-4)
    assert learning_rate(TrainConfig(learning_rate=3.0, warmup_steps=0), 0, 100, 9) == 3.0


def test_the_rate_rises_then_stays_then_falls_to_zero() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_steps=10, decay_share=0.5)
    rates = [learning_rate(config, step, 110, 9) for step in range(111)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10:60] == pytest.approx([1.0] * 50)
    assert rates[60:] == pytest.approx([1 - i / 50 for i in range(51)])


def test_a_short_run_warms_up_for_a_tenth_of_it() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_steps=1000, decay_share=0.0)
    rates = [learning_rate(config, step, 50, 9) for step in range(50)]
    assert rates.index(1.0) == 5
