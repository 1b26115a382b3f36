"""Every gradient of the sparse step equals dense float64 autograd, term by term, on odd shapes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.training.parameters import Parameters
from pellucid.training.step import TrainState
from support.dense_training import dense_gradients, dense_loss
from support.step_settings import middle_of_training, normal, step_gradients

KINDS = ["transcoder", "skip-transcoder", "sae"]


@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(2, 13),
    d_in=st.integers(1, 11),
    d_out=st.integers(2, 11),
    features=st.integers(1, 40),
    k=st.integers(1, 9),
    n_dead=st.integers(0, 40),
    seed=st.integers(0, 999),
)
def test_gradients_of_every_tensor(
    kind: str, n: int, d_in: int, d_out: int, features: int, k: int, n_dead: int, seed: int
) -> None:
    d_in = max(d_in, 2) if kind == "sae" else d_in
    config, state, x, y, dead = middle_of_training(kind, n, d_in, d_out, features, k, n_dead, seed)
    expected = dense_gradients(config, state.parameters, x, y, dead)
    found = step_gradients(config, state, x, y)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=1e-11 * scale + 1e-14, msg=f"{name} of a {kind}"
        )


@pytest.mark.parametrize("n_dead", [0, 3, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_float32(kind: str, n_dead: int) -> None:
    """Within 1e-5 of the largest, with several blocks of rows and of tokens."""
    config, state, x, y, dead = middle_of_training(kind, 301, 17, 23, 2500, 7, n_dead, seed=1)
    expected = dense_gradients(config, state.parameters, x, y, dead)
    tensors = {name: tensor.float() for name, tensor in state.parameters.tensors().items()}
    single = TrainState.start(config, Parameters.from_tensors(tensors))
    single.idle_tokens.copy_(state.idle_tokens)
    found = step_gradients(config, single, x.float(), y.float())
    for name, gradient in expected.items():
        error = (found[name].double() - gradient).abs().max() / gradient.abs().max()
        assert error <= 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_auxiliary_loss_reaches_the_encoder_of_dead_features(kind: str) -> None:
    """Dead features that the main loss never selects get a gradient in W_enc, b_enc and W_dec."""
    config, state, x, y, dead = middle_of_training(kind, 40, 6, 5, 50, 2, 10, seed=3)
    state.parameters.b_enc[dead] = 1.0
    state.parameters.b_enc[~dead] = 50.0
    gradients = step_gradients(config, state, x, y)
    for name in ("W_enc", "b_enc", "W_dec"):
        rows = gradients[name][dead].reshape(int(dead.sum()), -1)
        assert (rows.abs().amax(dim=1) > 0).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_agrees_with_finite_differences(kind: str) -> None:
    """The dense gradients are those of the loss as a number, error held constant in AuxK apart."""
    config, state, x, y, _ = middle_of_training(kind, 9, 5, 4, 12, 3, 0, seed=5)
    dead = torch.zeros(12, dtype=torch.bool)
    gradients = dense_gradients(config, state.parameters, x, y, dead)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in state.parameters.tensors().items():
        direction = normal(*tensor.shape, generator=generator)
        values = []
        for sign in (1, -1):
            moved = state.parameters.tensors() | {name: tensor + sign * 1e-6 * direction}
            values.append(dense_loss(config, Parameters.from_tensors(moved), x, y, dead))
        slope = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close((gradients[name] * direction).sum(), slope, rtol=1e-5, atol=1e-8)
