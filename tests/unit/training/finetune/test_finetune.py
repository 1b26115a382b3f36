"""Fine-tuning end to end on tiny models, in this process."""

import copy
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.core.errors import ConfigError, DictionaryError
from pellucid.core.types import Site
from pellucid.dictionaries import JumpReLU, ReLU, load_dictionaries
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.evaluation import evaluate
from pellucid.training import TrainingStoppedError
from pellucid.training.finetune import FinetuneConfig, FinetuneProgress, FinetuneResult, finetune
from pellucid.training.finetune.run import FinetunePlan, FinetuneRun
from support.finetuning import TEXT, tiny_subject, trained_transcoders
from support.tiny_dictionaries import tiny_set

MODEL = tiny_subject()
SETTINGS: dict[str, Any] = {
    "tokens": 2_560,
    "batch_tokens": 128,
    "learning_rate": 2e-3,
    "held_out_tokens": 300,
}


@pytest.fixture(autouse=True)
def little_text_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure what is before on less text."""
    monkeypatch.setattr("pellucid.training.finetune.run._TOKENS_BEFORE", 1_000)


@pytest.fixture(scope="module")
def start() -> DictionarySet:
    return trained_transcoders()


def run(start: DictionarySet, out: Path, **changes: Any) -> FinetuneResult:
    return finetune(MODEL, start, **({"data": TEXT, "out": out} | SETTINGS | changes))


@pytest.fixture(scope="module")
def finished(start: DictionarySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run(start, out)
    return out


def tensors(dictionaries: DictionarySet) -> dict[str, torch.Tensor]:
    return {
        f"{layer}.{name}": tensor
        for layer, dictionary in dictionaries.dictionaries.items()
        for name, tensor in dictionary.tensors().items()
    }


def same(left: DictionarySet, right: DictionarySet) -> bool:
    a, b = tensors(left), tensors(right)
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


class Stop(Exception):
    """Stands for whatever ends a process between two steps."""


def test_kl_falls_and_neither_model_nor_start_is_touched(
    start: DictionarySet, tmp_path: Path
) -> None:
    weights = copy.deepcopy(MODEL.module.state_dict())
    before = copy.deepcopy(start)
    progress: list[FinetuneProgress] = []
    result = run(start, tmp_path, tokens=5_120, on_progress=progress.append)
    assert all(weights[name].equal(now) for name, now in MODEL.module.state_dict().items())
    assert same(start, before)
    assert not any(tensor.requires_grad for tensor in tensors(start).values())

    comparison = result.comparison
    assert comparison.after.kl < 0.8 * comparison.before.kl
    assert comparison.kl_closed.value == pytest.approx(
        1 - comparison.after.kl / comparison.before.kl
    )
    assert comparison.kl_closed.low < comparison.kl_closed.value < comparison.kl_closed.high
    assert [each.after.l0 for each in comparison.layers] == [4.0] * 3

    assert len(progress) == 5_120 // 128
    assert progress[-1].tokens == result.tokens >= 5_120
    assert progress[-1].seconds_left == 0 < progress[0].seconds_left
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["kl"] for line in lines] == [
        each.figures.kl for each in progress[9::10]
    ]
    loaded = load_dictionaries(tmp_path)
    loaded.check_model(MODEL)
    assert loaded.manifest is not None
    assert loaded.manifest.results == result.to_json()
    assert not (tmp_path / "checkpoints").exists()


def test_figures_are_those_of_evaluate(start: DictionarySet, finished: Path) -> None:
    loaded = load_dictionaries(finished)
    assert loaded.manifest is not None
    measured = loaded.manifest.results["finetune"]
    for when, dictionaries in (("before", start), ("after", loaded)):
        expected = evaluate(MODEL, dictionaries, TEXT, tokens=300, layerwise=False, tasks=False)
        assert expected.replacement is not None
        for name in ("ce", "kl", "top1", "loss_recovered"):
            found = measured[when][name]
            assert found == pytest.approx(getattr(expected.replacement.all, name), rel=1e-4), name
        for layer, figures in zip(measured["layers"], expected.layers, strict=True):
            for name in ("layer", "fvu", "l0", "dead"):
                assert layer[when][name] == pytest.approx(getattr(figures, name), rel=1e-4), name
        assert measured["original_ce"] == pytest.approx(expected.original_ce)


@pytest.mark.parametrize("kinds", [["skip"] * 3, ["clt"] * 3, ["clt-mid", "plt", None]])
def test_every_kind_that_replaces_mlps_is_fine_tuned(
    kinds: list[str | None], tmp_path: Path
) -> None:
    result = run(tiny_set(MODEL, kinds, features=32), tmp_path, learning_rate=1e-2)
    assert result.comparison.after.kl < 0.8 * result.comparison.before.kl
    trained = load_dictionaries(tmp_path)
    assert all(
        not each.equal(tensors(trained)[name])
        for name, each in tensors(tiny_set(MODEL, kinds, features=32)).items()
    )


@pytest.mark.parametrize("activation", ["relu", "jumprelu"])
def test_l0_is_kept_without_topk(start: DictionarySet, activation: str, tmp_path: Path) -> None:
    start = copy.deepcopy(start)
    for dictionary in start:
        threshold = torch.full((dictionary.num_features,), 0.3)
        dictionary.activation = ReLU() if activation == "relu" else JumpReLU(threshold)
    result = run(start, tmp_path, tokens=5_120)
    for layer in result.comparison.layers:
        assert layer.after.l0 == pytest.approx(layer.before.l0, rel=0.1)
    assert result.comparison.after.kl < result.comparison.before.kl


def test_the_control_lowers_the_local_error_alone(start: DictionarySet, tmp_path: Path) -> None:
    progress: list[FinetuneProgress] = []
    result = run(start, tmp_path, objective="local", on_progress=progress.append)
    assert progress[0].figures.kl is None
    for layer in result.comparison.layers:
        assert layer.after.fvu < layer.before.fvu


def test_gradients_of_the_parts_of_a_batch_add_up(start: DictionarySet) -> None:
    gradients = []
    for forward_tokens in (2048, 100):
        plan = FinetunePlan(
            config=FinetuneConfig(batch_tokens=300),
            total_tokens=300,
            context_length=48,
            forward_tokens=forward_tokens,
        )
        part = FinetuneRun(plan, MODEL, start, TEXT)
        part.subject.step = lambda rate: None  # type: ignore[method-assign]
        part.advance()
        gradients.append(
            {name: tensor.grad for name, tensor in tensors(part.subject.trained).items()}
        )
    assert len(gradients[0]) == 12
    for name, whole in gradients[0].items():
        assert whole is not None and whole.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
def test_resuming_ends_with_the_same_weights(
    start: DictionarySet, tmp_path: Path, activation: str
) -> None:
    if activation == "jumprelu":
        start = copy.deepcopy(start)
        for dictionary in start:
            dictionary.activation = JumpReLU(torch.full((dictionary.num_features,), 0.3))
    steps = 0

    def stop(progress: FinetuneProgress) -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Stop

    short = {"tokens": 8 * 128}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(start, whole, **short)
    with pytest.raises(Stop):
        run(start, broken, checkpoint_seconds=0.0, on_progress=stop, **short)
    run(start, broken, resume=True, **short)
    assert same(load_dictionaries(whole), load_dictionaries(broken))


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(start: DictionarySet, tmp_path: Path) -> None:
    def interrupt(progress: FinetuneProgress) -> None:
        if progress.tokens > 300:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingStoppedError, match="--resume goes on from it"):
        run(start, tmp_path, on_progress=interrupt)
    assert list((tmp_path / "checkpoints").iterdir())
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(ConfigError, match="already holds a run that is not finished"):
        run(start, tmp_path)


def test_resuming_a_finished_run_gives_its_result(start: DictionarySet, finished: Path) -> None:
    again = run(start, finished, resume=True)
    manifest = load_dictionaries(finished).manifest
    assert manifest is not None and again.to_json() == manifest.results
    with pytest.raises(ConfigError, match="already holds trained dictionaries"):
        run(start, finished)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, "its learning_rate is 0.002, now it is 0.001"),
        ({"tokens": 999}, "its tokens is 2560, now it is 999"),
        ({"objective": "local"}, "its objective is 'kl'"),
    ],
)
def test_only_the_same_run_can_be_resumed(
    start: DictionarySet, finished: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(start, finished, resume=True, **changes)


def test_other_dictionaries_cannot_resume(start: DictionarySet, finished: Path) -> None:
    other = copy.deepcopy(start)
    other[1].b_dec[0] += 1
    with pytest.raises(ConfigError, match="its dictionaries is"):
        run(other, finished, resume=True)


def test_what_cannot_replace_mlps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match="layer 0 of 'tiny' is an SAE at resid_post@0"):
        run(tiny_set(MODEL, ["sae"] * 3), tmp_path)
    misplaced = tiny_set(MODEL, ["plt"] * 3)
    misplaced[2].read_site = Site("resid_post", 2)
    with pytest.raises(DictionaryError, match="layer 2 of 'tiny' reads resid_post@2"):
        run(misplaced, tmp_path)
    misplaced[2].read_site, misplaced[2].write_site = Site("mlp_in", 2), Site("attn_out", 2)
    with pytest.raises(DictionaryError, match="layer 2 writes attn_out@2"):
        run(misplaced, tmp_path)


def test_a_loss_that_is_not_finite_changes_nothing(start: DictionarySet, tmp_path: Path) -> None:
    plan = FinetunePlan(config=FinetuneConfig(), total_tokens=600, context_length=48)
    broken = FinetuneRun(plan, MODEL, start, TEXT)
    broken._begin()
    broken.subject.trained[1].b_dec.data[0] = float("inf")
    before = copy.deepcopy(broken.subject.trained)
    with pytest.raises(DictionaryError, match="the loss of step 0 is"):
        broken.advance()
    assert same(before, broken.subject.trained)


def test_bad_counts_and_settings_twice_are_refused(start: DictionarySet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tokens is 0; give a positive number"):
        run(start, tmp_path, tokens=0)
    with pytest.raises(ConfigError, match="give config or batch_tokens"):
        run(start, tmp_path, config=FinetuneConfig())
    with pytest.raises(ConfigError, match="unknown setting 'momentum'"):
        run(start, tmp_path, momentum=0.9)
