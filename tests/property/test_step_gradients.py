"""Every gradient of the sparse step equals dense float64 autograd, term by term, on odd shapes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.training.config import TrainConfig
from support.dense_training import dense_gradients, dense_loss
from support.step_settings import Setting, middle_of_training, moved, step_gradients

KINDS = ["transcoder", "skip-transcoder", "sae", "clt"]
ACTIVATIONS = ["topk", "batchtopk", "jumprelu", "relu"]


def _assert_equal(setting: Setting) -> None:
    expected = dense_gradients(
        setting.config, setting.tensors(), setting.xs, setting.ys, setting.dead
    )
    for found, wanted in zip(step_gradients(setting), expected, strict=True):
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(
                found[name], gradient, rtol=0, atol=1e-11 * scale + 1e-14, msg=name
            )


@given(
    kind=st.sampled_from(KINDS),
    activation=st.sampled_from(ACTIVATIONS),
    n=st.integers(2, 13),
    d_in=st.integers(1, 11),
    d_out=st.integers(2, 11),
    features=st.integers(1, 40),
    k=st.integers(1, 9),
    prefixes=st.sets(st.integers(1, 40), max_size=3),
    n_dead=st.integers(0, 40),
    seed=st.integers(0, 999),
)
def test_gradients_of_every_tensor(
    kind: str,
    activation: str,
    n: int,
    d_in: int,
    d_out: int,
    features: int,
    k: int,
    prefixes: set[int],
    n_dead: int,
    seed: int,
) -> None:
    config = TrainConfig(
        kind=kind,
        activation=activation,
        num_features=features,
        k=min(k, features),
        prefixes=tuple(sorted(size for size in prefixes if size <= features)),
    )
    d_in = max(d_in, 2) if kind == "sae" else d_in
    _assert_equal(middle_of_training(config, n=n, d_in=d_in, d_out=d_out, n_dead=n_dead, seed=seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_every_kind_and_activation_with_prefixes(kind: str, activation: str) -> None:
    """Every combination, so that none depends on what a random draw happens to try."""
    config = TrainConfig(
        kind=kind, activation=activation, num_features=37, k=3, prefixes=(5, 20, 37)
    )
    _assert_equal(middle_of_training(config, n=19, d_in=7, d_out=6, n_dead=4, seed=2))


@pytest.mark.parametrize("setting", [{"sparsity": 0.7, "bandwidth": 0.2}, {"bandwidth": 3.0}])
def test_gradients_with_other_penalties(setting: dict[str, float]) -> None:
    config = TrainConfig(activation="jumprelu", num_features=30, k=2, **setting)
    _assert_equal(middle_of_training(config, n=23, d_in=5, d_out=4, n_dead=0, seed=4))


@pytest.mark.parametrize("n_dead", [0, 3, 30])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_float32(kind: str, activation: str, n_dead: int) -> None:
    """Within 1e-5 of the largest, with several blocks of rows and of tokens."""
    config = TrainConfig(kind=kind, activation=activation, num_features=2500, k=7)
    setting = middle_of_training(config, n=101, d_in=17, d_out=23, n_dead=n_dead, seed=1)
    expected = dense_gradients(config, setting.tensors(), setting.xs, setting.ys, setting.dead)
    single = moved(setting, torch.float32)
    for found, wanted in zip(step_gradients(single), expected, strict=True):
        for name, gradient in wanted.items():
            error = (found[name].double() - gradient).abs().max() / gradient.abs().max()
            assert error <= 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_auxiliary_loss_reaches_the_encoder_of_dead_features(kind: str) -> None:
    """Dead features that the main loss never selects get a gradient in W_enc, b_enc and W_dec."""
    config = TrainConfig(kind=kind, num_features=50, k=2, aux_k=6)
    setting = middle_of_training(config, n=40, d_in=6, d_out=5, n_dead=10, seed=3)
    for state, dead in zip(setting.states, setting.dead, strict=True):
        state.parameters.b_enc[dead] = 1.0
        state.parameters.b_enc[~dead] = 50.0
    for gradients, dead in zip(step_gradients(setting), setting.dead, strict=True):
        for name in ("W_enc", "b_enc", "W_dec"):
            rows = gradients[name][dead].reshape(int(dead.sum()), -1)
            assert (rows.abs().amax(dim=1) > 0).all(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["topk", "batchtopk", "relu"])
def test_the_oracle_agrees_with_finite_differences(kind: str, activation: str) -> None:
    """The dense gradients are those of the loss as a number (a JumpReLU's are no derivatives)."""
    config = TrainConfig(kind=kind, activation=activation, num_features=12, k=3, prefixes=(4,))
    setting = middle_of_training(config, n=9, d_in=5, d_out=4, n_dead=0, seed=5)
    tensors = setting.tensors()
    batch = (setting.xs, setting.ys, setting.dead)
    gradients = dense_gradients(config, tensors, *batch)
    generator = torch.Generator().manual_seed(0)
    for number, part in enumerate(tensors):
        for name, tensor in part.items():
            direction = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            values = []
            for sign in (1, -1):
                moved = list(tensors)
                moved[number] = part | {name: tensor + sign * 1e-6 * direction}
                values.append(dense_loss(config, moved, *batch))
            slope = (values[0] - values[1]) / 2e-6
            along = (gradients[number][name] * direction).sum()
            torch.testing.assert_close(along, slope, rtol=1e-5, atol=1e-8)
