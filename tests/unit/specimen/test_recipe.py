import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.manifest import read_manifest
from pellucid.specimen.recipe import Progress, Recipe, train_specimen

MICRO = Recipe(sequence_length=32, batch_size=2, layers=1, width=16, heads=2, inner=16)
STEPS = 8
TOKENS = STEPS * MICRO.batch_tokens


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Bit-exactness is promised on one thread."""
    torch.set_num_threads(1)


def train(out: Path, **settings: object) -> Path:
    defaults = {"tokens": TOKENS, "recipe": MICRO, "save_every": 3, "evaluation_count": 2}
    return train_specimen(out, **(defaults | settings))


class Stop(Exception):
    """Stands for a kill: nothing after it runs."""


def stop_after(step: int) -> object:
    def progress(now: Progress) -> None:
        if now.step == step:
            raise Stop

    return progress


def losses(out: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run")
    train(out)
    return out


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_a_resumed_run_ends_in_the_same_bits(
    tmp_path: Path, uninterrupted: Path, stop: int
) -> None:
    with pytest.raises(Stop):
        train(tmp_path, progress=stop_after(stop))
    train(tmp_path, resume=True)
    assert losses(tmp_path) == losses(uninterrupted)
    for name in ("checkpoint/model", "checkpoint/optimizer", "model/model", "intermediate/model"):
        mine = (tmp_path / f"{name}.safetensors").read_bytes()
        assert mine == (uninterrupted / f"{name}.safetensors").read_bytes()


def test_a_finished_run_resumes_to_itself(uninterrupted: Path) -> None:
    before = losses(uninterrupted)
    train(uninterrupted, resume=True)
    assert losses(uninterrupted) == before


def test_the_finished_model_is_a_plain_model_folder(uninterrupted: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(uninterrupted / "model")
    tokenizer = AutoTokenizer.from_pretrained(uninterrupted / "model")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    stored = load_file(uninterrupted / "model" / "model.safetensors")
    assert {p.dtype for p in stored.values()} == {torch.float16}
    trained = load_file(uninterrupted / "checkpoint" / "model.safetensors")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, trained[name].half().float())
    ids = tokenizer("the capital of texas is", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape == (1, 8)


def test_the_manifest_says_how_the_model_was_made(uninterrupted: Path) -> None:
    manifest = read_manifest(uninterrupted / "model", kind="specimen-model")
    assert Recipe(**manifest.config) == replace(MICRO, tokens=TOKENS)
    assert manifest.results["step"] == STEPS
    assert manifest.results["tokens"] == TOKENS
    assert manifest.results["hardware"]["threads"] == 1
    assert 0 <= manifest.results["tasks"]["one_hop"] <= 1
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(manifest.files)
    early = read_manifest(uninterrupted / "intermediate", kind="specimen-model")
    assert early.results["step"] == STEPS // 4


def test_losses_fall_and_are_logged_each_step(uninterrupted: Path) -> None:
    found = losses(uninterrupted)
    assert [step for step, _ in found] == list(range(1, STEPS + 1))


def test_a_run_is_not_overwritten(uninterrupted: Path) -> None:
    with pytest.raises(ConfigError, match="already holds a run; resume it or choose another"):
        train(uninterrupted)


def test_resuming_with_other_settings_is_refused(uninterrupted: Path) -> None:
    with pytest.raises(ConfigError, match="made with seed 0, this run has 1; resume with the same"):
        train(uninterrupted, resume=True, seed=1)


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no manifest"):
        train(tmp_path, resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tmp_path, progress=stop_after(3))
    weights = tmp_path / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        train(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 10}, "10 tokens do not fill one batch; ask for at least 7680"),
        ({"sequence_length": 300}, "sequences of 300 tokens do not fit the context"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**settings)


def test_other_seeds_make_other_models(tmp_path: Path, uninterrupted: Path) -> None:
    train(tmp_path, seed=1)
    assert losses(tmp_path) != losses(uninterrupted)
