"""One layer's training: scales, restoring bit for bit, and what it learns."""

import pytest
import torch

from pellucid.core.errors import ConfigError, DataError, DictionaryError
from pellucid.core.types import AnySite, Site
from pellucid.dictionaries import TopK
from pellucid.distributed.team import ALONE
from pellucid.training.activations import RULES
from pellucid.training.config import TrainConfig
from pellucid.training.layer import LayerTraining
from pellucid.training.scales import measure_scale

BATCH = 256
KINDS = ["transcoder", "skip-transcoder", "sae"]
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def _batches(kind: str, count: int, *, seed: int = 0) -> Batches:
    """Inputs made of few of 40 directions, far from unit scale, outputs nonlinear in them."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(40, 30, generator=generator) * 40
    output_map = torch.randn(40, 9, generator=generator) * 0.01
    batches = []
    for _ in range(count):
        active = torch.rand(BATCH, 40, generator=generator) < 0.04
        strengths = active * torch.rand(BATCH, 40, generator=generator)
        x = strengths @ directions + 30
        batches.append((x, x if kind == "sae" else strengths @ output_map - 0.2))
    return batches


def _sites(kind: str) -> dict[str, AnySite]:
    read = Site("mlp_in", 3)
    return {"read_site": read, "write_site": read if kind == "sae" else Site("mlp_out", 3)}


def _start(config: TrainConfig, batches: Batches, total_tokens: int) -> LayerTraining:
    return LayerTraining.start(
        config,
        *batches[0],
        **_sites(config.kind),
        total_tokens=total_tokens,
        generator=torch.Generator().manual_seed(config.seed),
    )


def _config(kind: str, **changes: object) -> TrainConfig:
    settings = {"num_features": 60, "k": 4, "batch_tokens": BATCH, "learning_rate": 3e-3}
    return TrainConfig(kind=kind, **(settings | changes))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_explains_most_of_the_variance(kind: str, precision: str) -> None:
    batches = _batches(kind, 300)
    training = _start(_config(kind, precision=precision), batches, 300 * BATCH)
    first, *_, last = [training.step(x, y) for x, y in batches]
    x, y = _batches(kind, 301)[-1]
    error = (y - training.dictionary()(x)).square().sum() / (y - y.mean(dim=0)).square().sum()
    assert first.fvu > (0.9 if kind != "sae" else 0.3)
    assert last.fvu < 0.2
    assert float(error) < 0.2
    assert last.dead < 0.1
    assert 2 < last.l0 <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_folded_dictionary_is_the_trained_one_at_raw_scale(kind: str) -> None:
    batches = _batches(kind, 30)
    training = _start(_config(kind), batches, 30 * BATCH)
    for x, y in batches:
        training.step(x, y)
    dictionary = training.dictionary()
    x, y = batches[0]
    error = (y - dictionary(x)).square().sum() / (y - y.mean(dim=0)).square().sum()
    assert float(error) == pytest.approx(training.step(x, y).fvu, rel=1e-4)
    assert (dictionary.read_site, dictionary.write_site) == tuple(_sites(kind).values())


def test_scales_bring_the_mean_squared_norm_to_the_width() -> None:
    x = torch.randn(500, 8) * 37 + 5
    scaled = x * measure_scale(x, "here")
    assert float(scaled.square().sum(dim=1).mean()) == pytest.approx(8, rel=1e-5)


RESTORED: list[dict[str, object]] = [
    {},
    {"precision": "bfloat16"},
    {"activation": "batchtopk"},
    {"activation": "jumprelu", "average": 0.9},
    {"activation": "relu", "decoder_norm": "unit", "prefixes": (10, 30)},
]


@pytest.mark.parametrize("changes", RESTORED, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_training_continues_bit_for_bit(kind: str, changes: dict[str, object]) -> None:
    config = _config(kind, dead_after=2 * BATCH, **changes)
    batches = _batches(kind, 24)
    whole = _start(config, batches, 24 * BATCH)
    for x, y in batches:
        whole.step(x, y)

    interrupted = _start(config, batches, 24 * BATCH)
    for x, y in batches[:11]:
        interrupted.step(x, y)
    stored = {name: tensor.clone() for name, tensor in interrupted.tensors().items()}
    resumed = LayerTraining.restore(config, stored, **_sites(kind), total_tokens=24 * BATCH)
    for x, y in batches[11:]:
        resumed.step(x, y)

    assert whole.tensors().keys() == resumed.tensors().keys()
    for name, tensor in whole.tensors().items():
        assert torch.equal(resumed.tensors()[name], tensor), name


@pytest.mark.parametrize("activation", ["batchtopk", "jumprelu", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_activations_explain_the_variance_too(kind: str, activation: str) -> None:
    """And with few active features a token, also once the dictionary is finished."""
    batches = _batches(kind, 300)
    training = _start(_config(kind, activation=activation), batches, 300 * BATCH)
    *_, last = [training.step(x, y) for x, y in batches]
    x, y = _batches(kind, 301)[-1]
    dictionary = training.dictionary()
    error = (y - dictionary(x)).square().sum() / (y - y.mean(dim=0)).square().sum()
    assert last.fvu < 0.2
    assert float(error) < 0.2
    l0 = float(dictionary.encode(x).l0().mean())
    assert 1 < l0 < 8
    assert activation != "batchtopk" or l0 == pytest.approx(4, rel=0.2)


def test_the_budget_of_a_batch_is_spent_exactly() -> None:
    """k N pairs a step, also where one token takes more than the candidates first looked for."""
    batches = _batches("transcoder", 3)
    greedy = [(x * torch.linspace(0, 30, BATCH)[:, None], y) for x, y in batches]
    training = _start(_config("transcoder", activation="batchtopk", k=2), greedy, 3 * BATCH)
    most = 0
    for x, y in greedy:
        codes = RULES["batchtopk"].settle(
            training.config,
            TopK(60)(_pre_activations(training, x)),
            None,
            ALONE,
        )
        assert codes is not None
        most = max(most, int(codes.codes.l0().max()))
        assert training.step(x, y).l0 == 2
    assert most > 8


def _pre_activations(training: LayerTraining, x: torch.Tensor) -> torch.Tensor:
    parameters = training.state.parameters
    return x * training.scales.read @ parameters.W_enc.T + parameters.b_enc


def test_a_stronger_penalty_leaves_fewer_features_active() -> None:
    batches = _batches("transcoder", 200)
    l0 = []
    for sparsity in (1e-3, 0.5, 3.0):
        config = _config("transcoder", activation="relu", sparsity=sparsity)
        training = _start(config, batches, 200 * BATCH)
        l0.append([training.step(x, y) for x, y in batches][-1].l0)
    assert l0[0] > 1.2 * l0[1] > 1.8 * l0[2]


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_rows_kept_at_norm_one(kind: str) -> None:
    batches = _batches(kind, 20)
    training = _start(_config(kind, decoder_norm="unit"), batches, 20 * BATCH)
    for x, y in batches:
        training.step(x, y)
        norms = training.state.parameters.W_dec.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))


def test_the_running_mean_of_the_weights_is_what_is_saved() -> None:
    batches = _batches("transcoder", 30)
    training = _start(_config("transcoder", average=0.8), batches, 30 * BATCH)
    expected: torch.Tensor | None = None
    for steps, (x, y) in enumerate(batches):
        training.step(x, y)
        now = training.state.parameters.W_dec.double()
        weight = max(0.2, 1 / (steps + 1))
        expected = now if expected is None else expected + weight * (now - expected)
    assert expected is not None
    saved = training.dictionary().W_dec * training.scales.write
    torch.testing.assert_close(saved.double(), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(saved, training.state.parameters.W_dec)


def test_every_prefix_reconstructs_by_itself() -> None:
    """The first features alone do better where they were trained to stand alone."""
    batches = _batches("transcoder", 300)
    alone = []
    for prefixes in ((), (10,)):
        training = _start(_config("transcoder", prefixes=prefixes), batches, 300 * BATCH)
        for x, y in batches:
            training.step(x, y)
        dictionary = training.dictionary()
        x, y = _batches("transcoder", 301)[-1]
        codes = dictionary.encode(x).dense()
        error = y - codes[:, :10] @ dictionary.W_dec[:10] - dictionary.b_dec
        alone.append(float(error.square().sum() / (y - y.mean(dim=0)).square().sum()))
    assert alone[1] < 0.8 * alone[0]


def test_tokens_since_firing_are_counted() -> None:
    config = _config("transcoder")
    batches = _batches("transcoder", 3)
    training = _start(config, batches, 3 * BATCH)
    training.state.parameters.b_enc[:2] = torch.tensor([1e6, -1e6])
    for x, y in batches:
        training.step(x, y)
    assert training.state.idle_tokens[:2].tolist() == [0, 3 * BATCH]


def test_dead_features_are_revived() -> None:
    """Features too weak to be among the k largest come back when the auxiliary loss is on."""
    batches = _batches("transcoder", 200)
    dead = {}
    for coefficient in (0.0, 1 / 32, 1 / 4):
        config = _config("transcoder", aux_coefficient=coefficient, dead_after=4 * BATCH)
        training = _start(config, batches, 200 * BATCH)
        training.state.parameters.W_enc[:30] *= 0.05
        training.state.parameters.b_enc[:30] *= 0.05
        dead[coefficient] = [training.step(x, y) for x, y in batches][-1].dead
    assert dead[1 / 4] < 0.5 * dead[0.0]
    assert dead[1 / 4] < dead[1 / 32] < 0.75 * dead[0.0]


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    batches = _batches("transcoder", 1)
    training = _start(_config("transcoder"), batches, BATCH)
    before = {name: tensor.clone() for name, tensor in training.tensors().items()}
    x, y = batches[0]
    with pytest.raises(DictionaryError, match="the loss of step 0 is nan; lower the learning rate"):
        training.step(x, y.where(y < y.max(), torch.nan))
    for name, tensor in training.tensors().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_activations_without_a_scale_name_their_site(value: float) -> None:
    x, y = _batches("transcoder", 1)[0]
    with pytest.raises(DataError, match="the activations at mlp_out@3 have mean square"):
        _start(_config("transcoder"), [(x, torch.full_like(y, value))], BATCH)


def test_k_beyond_the_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 4 but there are only 3 features"):
        _start(_config("transcoder", num_features=3), _batches("transcoder", 1), BATCH)


def test_dead_after_defaults_to_a_share_of_the_run_up_to_ten_million() -> None:
    batches = _batches("transcoder", 1)
    assert _start(_config("transcoder"), batches, 2_000_000).dead_after == 100_000
    assert _start(_config("transcoder"), batches, 10**10).dead_after == 10_000_000
    assert _start(_config("transcoder", dead_after=7), batches, 10**10).dead_after == 7
