"""A whole training step on the Triton kernels against dense autograd in float64."""

import pytest
import torch

from pellucid.kernels.dispatch import using
from pellucid.kernels.triton import gradients, topk
from pellucid.training.config import TrainConfig
from pellucid.training.parameters import Parameters
from pellucid.training.step import TrainState
from support.dense_training import dense_gradients
from support.kernel_cases import difference
from support.step_settings import middle_of_training, step_gradients

KINDS = ["transcoder", "skip-transcoder", "sae"]


def _at(state: TrainState, config: TrainConfig, dtype: torch.dtype, device: str) -> TrainState:
    tensors = {name: each.to(device, dtype) for name, each in state.parameters.tensors().items()}
    moved = TrainState.start(config, Parameters.from_tensors(tensors))
    moved.idle_tokens.copy_(state.idle_tokens)
    return moved


@pytest.mark.parametrize(("n_dead", "part"), [(0, 512), (7, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_tensor(
    kind: str, n_dead: int, part: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "_PART", part)
    config, state, x, y, dead = middle_of_training(kind, 13, 7, 5, 15, 3, n_dead, seed=2)
    expected = dense_gradients(config, state.parameters, x, y, dead)
    with using("triton"):
        state = _at(state, config, torch.float64, device)
        found = step_gradients(config, state, x.to(device), y.to(device))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert difference(found[name], gradient) <= 1e-11, name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_float32(kind: str, device: str) -> None:
    config, state, x, y, dead = middle_of_training(kind, 13, 33, 7, 33, 9, 10, seed=1)
    expected = dense_gradients(config, state.parameters, x, y, dead)
    with using("triton"):
        single = _at(state, config, torch.float32, device)
        found = step_gradients(config, single, x.float().to(device), y.float().to(device))
    for name, gradient in expected.items():
        assert difference(found[name], gradient) <= 1e-5, name


def test_an_encoder_in_bfloat16(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that read one column of a weight that bfloat16 holds leave nothing to round."""
    monkeypatch.setattr(topk, "_DIRECT_WIDTH", 8)  # so that the product takes maxima of groups
    _, state, _, y, dead = middle_of_training("transcoder", 13, 7, 5, 40, 3, 0, seed=3)
    config = TrainConfig(num_features=40, k=3, precision="bfloat16")
    state.parameters.W_enc.copy_(state.parameters.W_enc.bfloat16())
    state.parameters.b_enc.zero_()
    x = torch.eye(7, dtype=torch.float64).repeat(2, 1)[:13]
    expected = dense_gradients(config, state.parameters, x, y, dead)
    with using("triton"):
        low = _at(state, config, torch.float32, device)
        found = step_gradients(config, low, x.float().to(device), y.float().to(device))
    for name, gradient in expected.items():
        assert difference(found[name], gradient) <= 1e-5, name
