"""A whole training step on the Triton kernels against dense autograd in float64."""

import pytest
import torch

from pellucid.kernels.dispatch import using
from pellucid.kernels.triton import gradients, topk
from pellucid.training.config import TrainConfig
from support.dense_training import dense_gradients
from support.kernel_cases import difference
from support.step_settings import Setting, middle_of_training, moved, step_gradients

KINDS = ["transcoder", "skip-transcoder", "sae", "clt"]


def _worst(setting: Setting, dtype: torch.dtype, device: str) -> float:
    """The largest difference of any gradient."""
    expected = dense_gradients(
        setting.config, setting.tensors(), setting.xs, setting.ys, setting.dead
    )
    with using("triton"):
        found = step_gradients(moved(setting, dtype, device))
    pairs = zip(found, expected, strict=True)
    return max(difference(part[name], wanted[name]) for part, wanted in pairs for name in wanted)


@pytest.mark.parametrize(("n_dead", "part"), [(0, 512), (7, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_tensor(
    kind: str, n_dead: int, part: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "_PART", part)
    config = TrainConfig(kind=kind, num_features=15, k=3)
    setting = middle_of_training(config, n=13, d_in=7, d_out=5, n_dead=n_dead, seed=2)
    assert _worst(setting, torch.float64, device) <= 1e-11


@pytest.mark.parametrize("activation", ["batchtopk", "jumprelu", "relu"])
def test_gradients_of_other_activations(activation: str, device: str) -> None:
    config = TrainConfig(activation=activation, num_features=15, k=3, prefixes=(6,))
    setting = middle_of_training(config, n=13, d_in=7, d_out=5, n_dead=4, seed=2)
    assert _worst(setting, torch.float64, device) <= 1e-11


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_float32(kind: str, device: str) -> None:
    config = TrainConfig(kind=kind, num_features=33, k=9)
    setting = middle_of_training(config, n=13, d_in=33, d_out=7, n_dead=10, seed=1)
    assert _worst(setting, torch.float32, device) <= 1e-5


def test_an_encoder_in_bfloat16(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that read one column of a weight that bfloat16 holds leave nothing to round."""
    monkeypatch.setattr(topk, "_DIRECT_WIDTH", 8)  # so that the product takes maxima of groups
    config = TrainConfig(num_features=40, k=3, precision="bfloat16")
    setting = middle_of_training(config, n=13, d_in=7, d_out=5, n_dead=0, seed=3)
    parameters = setting.states[0].parameters
    parameters.W_enc.copy_(parameters.W_enc.bfloat16())
    parameters.b_enc.zero_()
    setting.xs[0] = torch.eye(7, dtype=torch.float64).repeat(2, 1)[:13]
    assert _worst(setting, torch.float32, device) <= 1e-5
