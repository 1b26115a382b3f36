"""Everything a user can get wrong: one line on standard error that helps, and exit code 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pellucid.dictionaries.checkpoint import save_dictionaries
from pellucid.models.load import load_model
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import save_tiny_llama
from unit.cli.conftest import Command, Outcome, Workshop


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def evaluating(pellucid: Command, workshop: Workshop) -> Callable[..., Outcome]:
    """`pellucid eval` on sound input but for what is changed."""

    def run(**changed: object) -> Outcome:
        given = {
            "model": workshop.model,
            "dictionaries": workshop.dictionaries,
            "data": workshop.text,
            "tokens": 200,
        } | changed
        return pellucid(
            *("eval", given["model"], "--dictionaries", given["dictionaries"]),
            *("--data", given["data"], "--tokens", given["tokens"], "--no-layerwise", "--quiet"),
        )

    return run


@pytest.fixture
def tracing(pellucid: Command, workshop: Workshop, tmp_path: Path) -> Callable[..., Outcome]:
    """`pellucid trace` on sound input but for what is changed; more arguments follow."""

    def run(
        *more: object,
        prompt: str | None = "w5 w6 w7",
        model: object = workshop.model,
        dictionaries: object = workshop.dictionaries,
    ) -> Outcome:
        words = [] if prompt is None else [prompt]
        return pellucid(
            *("trace", model, *words, "--dictionaries", dictionaries),
            *("--out", tmp_path / "graph", "--quiet", *more),
        )

    return run


@pytest.fixture
def training(pellucid: Command, workshop: Workshop, tmp_path: Path) -> Callable[..., Outcome]:
    """`pellucid train` on sound input but for what is changed; more arguments follow."""

    def run(*more: object, model: object = workshop.model, data: object = workshop.text) -> Outcome:
        return pellucid(
            *("train", model, "--data", data, "--out", tmp_path / "run"),
            *("--tokens", "1k", "--features", 64, "--k", 4, "--batch-tokens", 128, "--quiet"),
            *more,
        )

    return run


# The command line itself


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain"], ["explain"]),
        (["trace"], ["MODEL"]),
        (["eval", "specimen", "--nonsense"], ["--nonsense"]),
        (["eval", "specimen", "--tokens", "two"], ["--tokens", "'two'", "500k"]),
        (["eval", "specimen", "--threads", "0"], ["--threads", "0"]),
        (["eval", "specimen", "--seed", "-1"], ["--seed", "-1"]),
        (["train", "specimen"], ["--out"]),
        (["trace", "specimen", "a", "--out", "g", "--format", "png"], ["png", "neuronpedia"]),
        (["specimen", "sample", "--task", "chess"], ["chess", "arithmetic"]),
        (["specimen", "train", "--out", "x", "--device", "cuda"], ["cuda", "--device"]),
    ],
)
def test_arguments(pellucid: Command, arguments: list[str], words: list[str]) -> None:
    assert_refused(pellucid(*arguments), *words)


def test_only_the_specimen_has_dictionaries_and_data_of_its_own(
    pellucid: Command, workshop: Workshop
) -> None:
    assert_refused(pellucid("eval", workshop.model), "--dictionaries", "specimen")
    with_some = pellucid("eval", workshop.model, "--dictionaries", workshop.dictionaries)
    assert_refused(with_some, "--data")


# Models


def test_unknown_models(evaluating: Callable[..., Outcome], tmp_path: Path) -> None:
    assert_refused(evaluating(model=tmp_path / "nothing"), "nothing")
    assert_refused(evaluating(model=tmp_path), "config.json")
    assert_refused(evaluating(model="nobody/no-such-model"), "nobody/no-such-model")
    assert_refused(evaluating(model="spelling mistake"), "spelling mistake")


def test_unknown_families(
    evaluating: Callable[..., Outcome], tmp_path: Path, workshop: Workshop
) -> None:
    shutil.copytree(workshop.model, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "mamba"}))
    assert_refused(evaluating(model=tmp_path / "model"), "mamba", "llama")


def test_damaged_weights(
    evaluating: Callable[..., Outcome], tmp_path: Path, workshop: Workshop
) -> None:
    shutil.copytree(workshop.model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_refused(evaluating(model=tmp_path / "model"), "model")


def test_a_device_that_is_not_there(tracing: Callable[..., Outcome]) -> None:
    assert_refused(tracing("--device", "abacus"), "abacus", "cpu")


# Sites


@pytest.mark.parametrize(
    ("read", "write", "words"),
    [
        ("model.layers.{layer}.nothing", "model.layers.{layer}.mlp", ["nothing"]),
        ("mlp_inn@{layer}", "mlp_out@{layer}", ["mlp_inn", "mlp_in"]),
        ("mlp_in@{layer}", None, ["--write"]),
    ],
)
def test_unknown_sites(
    training: Callable[..., Outcome], read: str, write: str | None, words: list[str]
) -> None:
    more = ["--read", read] + ([] if write is None else ["--write", write])
    assert_refused(training(*more), *words)


# Text


def test_text_that_is_missing_empty_or_not_utf8(
    evaluating: Callable[..., Outcome], training: Callable[..., Outcome], tmp_path: Path
) -> None:
    empty, latin = tmp_path / "empty.txt", tmp_path / "latin.txt"
    empty.write_text("")
    latin.write_bytes("w5 café w6".encode("latin-1"))
    for run in (evaluating, training):
        assert_refused(run(data=tmp_path / "missing.txt"), "missing.txt")
        assert_refused(run(data=empty), "empty.txt", "empty")
        assert_refused(run(data=latin), "latin.txt", "UTF-8", "offset 6")


# Prompts


def test_prompts(tracing: Callable[..., Outcome]) -> None:
    assert_refused(tracing(prompt=""), "empty")
    assert_refused(tracing(prompt="w5 " * 100), "101", "48")
    assert_refused(tracing(prompt="w5 unheard-of w6"), "unheard-of")


def test_prompt_ids(tracing: Callable[..., Outcome]) -> None:
    assert_refused(tracing(prompt=None), "PROMPT", "--prompt-ids")
    assert_refused(tracing("--prompt-ids", "5,6"), "both")
    assert_refused(tracing("--prompt-ids", "5,x", prompt=None), "5,x")
    assert_refused(tracing("--prompt-ids", "5,67", prompt=None), "67")


def test_limits_of_a_trace(tracing: Callable[..., Outcome]) -> None:
    assert_refused(tracing("--max-features", 0), "--max-features", "0")
    assert_refused(tracing("--epsilon", 2), "epsilon", "2")


# Training settings


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--k", 65], ["65", "64"]),
        (["--k", 0], ["0"]),
        (["--kind", "clt", "--read", "a", "--write", "b"], ["cross-layer", "--read"]),
        (["--kind", "magic"], ["magic", "transcoder"]),
        (["--activation", "gelu"], ["gelu", "topk"]),
        (["--sparsity", 0.5], ["0.5", "topk"]),
        (["--prefixes", "8,4"], ["8, 4", "rise"]),
        (["--layout", "data=2"], ["data=2", "torchrun"]),
        (["--expansion", 4], ["--features", "--expansion"]),
        (["--layers", "0-9"], ["3", "0 to 2"]),
        (["--layers", "2-1"], ["--layers", "2-1"]),
        (["--field", "title", "--learning-rate", "-1"], ["-1"]),
        (["--context-length", 4000], ["4000", "48"]),
    ],
)
def test_settings(training: Callable[..., Outcome], more: list[object], words: list[str]) -> None:
    assert_refused(training(*more), *words)


def test_resuming_another_run(training: Callable[..., Outcome]) -> None:
    assert training().code == 0
    assert_refused(training(), "already holds")
    assert_refused(training("--resume", "--seed", 1), "seed")


# Dictionaries


def test_dictionaries_of_another_model(
    evaluating: Callable[..., Outcome], tracing: Callable[..., Outcome], tmp_path: Path
) -> None:
    other = save_tiny_llama(tmp_path / "other", seed=1)
    for run in (evaluating, tracing):
        assert_refused(run(model=other), "another model")


def test_dictionaries_of_another_width(evaluating: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "narrow", hidden_size=16)
    narrow = tiny_transcoders(load_model(folder)).dictionaries
    save_dictionaries(tmp_path / "dictionaries", narrow)
    assert_refused(evaluating(dictionaries=tmp_path / "dictionaries"), "width 16", "32")


def test_a_layer_without_a_dictionary(
    tracing: Callable[..., Outcome], tmp_path: Path, workshop: Workshop
) -> None:
    some = tiny_transcoders(load_model(workshop.model)).dictionaries
    save_dictionaries(tmp_path / "some", {0: some[0], 2: some[2]})
    assert_refused(tracing(dictionaries=tmp_path / "some"), "layer 1")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "manifest"])
def test_damaged_dictionaries(
    evaluating: Callable[..., Outcome], tmp_path: Path, workshop: Workshop, damage: str
) -> None:
    folder = shutil.copytree(workshop.dictionaries, tmp_path / "damaged")
    file = folder / "layer_1.safetensors"
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "missing":
        file.unlink()
    else:
        file = folder / "manifest.json"
        file.write_text(file.read_text()[:-40])
    assert_refused(evaluating(dictionaries=folder), file.name)


def test_a_folder_that_holds_no_dictionaries(
    evaluating: Callable[..., Outcome], workshop: Workshop
) -> None:
    assert_refused(evaluating(dictionaries=workshop.model), "manifest.json")


# Output


def test_a_place_that_cannot_be_written(
    tracing: Callable[..., Outcome], training: Callable[..., Outcome], tmp_path: Path
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    assert_refused(tracing("--html", occupied / "page.html"), "file")
