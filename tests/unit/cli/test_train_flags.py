"""Every flag of `train` does something that can be seen, or is refused where it means nothing."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from pellucid import api
from pellucid.cli import main
from pellucid.cli.app import build
from pellucid.core.manifest import read_manifest
from pellucid.harvest import live
from pellucid.training.finetune.loop import finetune
from pellucid.training.loop import train
from pellucid.training.measure import Measurement
from support.tiny_models import save_tiny_llama
from support.trackers import fake_tensorboard, fake_wandb
from support.word_text import word_documents
from unit.cli.conftest import Outcome, Workshop
from unit.cli.test_bad_input import assert_refused

SIZES = " --layers 0 --k 4 --tokens 512 --batch-tokens 128 --context-length 24"
FINETUNE = "--finetune kl --finetune-tokens 1k"
PATH = "layers.{layer}.mlp"


class Ran(NamedTuple):
    """A command that ended, and its folder."""

    out: Path
    outcome: Outcome


class Effect(NamedTuple):
    """A run with these words differs in `where` from one without them; `beside` is in both."""

    words: str
    where: str
    beside: str = ""


class Refusal(NamedTuple):
    """The words are refused with this message."""

    words: str
    message: str


TABLE: dict[str, list[Effect | Refusal]] = {
    "model": [Effect("STRANGER", "weights")],
    "data": [
        Effect("--data OTHER", "weights"),
        Effect("--data TEXT=9", "weights", "--tokens 1500 --data OTHER"),
    ],
    "kind": [
        Effect("--kind skip-transcoder", "shapes"),
        Effect("--kind sae", "sites"),
        Effect("--kind clt", "shapes"),
    ],
    "activation": [
        Effect("--activation batchtopk", "shapes"),
        Effect("--activation jumprelu", "shapes"),
        Effect("--activation relu", "weights"),
    ],
    "features": [Effect("--features 64", "shapes")],
    "expansion": [
        Effect("--expansion 2", "shapes"),
        Refusal("--features 64 --expansion 2", "--features 64 and --expansion 2 both set"),
    ],
    "k": [
        Effect("--k 6", "weights", f"--activation {name}")
        for name in ("topk", "batchtopk", "jumprelu", "relu")
    ],
    "prefixes": [
        Effect("--prefixes 16", "weights"),
        Refusal("--features 64 --prefixes 64", "prefix 64 is all 64 features"),
    ],
    "sparsity": [
        Effect("--sparsity 0.7", "weights", "--activation jumprelu"),
        Effect("--sparsity 0.7", "weights", "--activation relu"),
        Refusal("--sparsity 0.7", "means nothing to topk"),
    ],
    "decoder_norm": [Effect("--decoder-norm unit", "weights")],
    "average": [
        Effect("--average 0.5", "weights"),
        Refusal("--average 0", "average is 0.0; give a number above 0"),
    ],
    "layers": [Effect("--layers 1", "files")],
    "tokens": [Effect("--tokens 256", "weights")],
    "batch_tokens": [Effect("--batch-tokens 64", "weights")],
    "learning_rate": [Effect("--learning-rate 0.1", "weights")],
    "precision": [Effect("--precision bfloat16", "weights", "--precision float32")],
    "store": [
        Effect("--store float16", "shapes"),
        Effect("--store float16", "shapes", f"--dictionaries DICTS {FINETUNE}"),
    ],
    "context_length": [
        Effect("--context-length 5", "weights"),
        Effect("--context-length 5", "weights", f"--dictionaries DICTS {FINETUNE}"),
    ],
    "packing": [Effect("--packing packed", "weights", "--data RECORDS")],
    "exclude_high_norm": [Effect("--exclude-high-norm 1.2", "weights")],
    "cache": [Effect("--cache CACHE", "files")],
    "cache_dtype": [
        Effect("--cache-dtype int8", "weights", "--cache CACHE"),
        Refusal("--cache-dtype float32", "--cache-dtype float32 does nothing without --cache"),
    ],
    "cache_order": [
        Effect("--cache-order shuffled", "weights", "--tokens 1500 --cache CACHE"),
        Refusal("--cache-order text", "--cache-order text does nothing without --cache"),
    ],
    "field": [
        Effect("--field other", "weights", "--data RECORDS"),
        Effect("--field other", "weights", f"--data RECORDS --dictionaries DICTS {FINETUNE}"),
        Refusal("--field text", "field 'text' means nothing to"),
        Refusal("--data specimen --field text", "field 'text' means nothing to specimen"),
    ],
    "read": [
        Effect(f"--read {PATH} --write {PATH}", "sites"),
        Effect(f"--read {PATH}", "sites", "--kind sae"),
        Refusal(f"--read {PATH}", "needs --read and --write together"),
    ],
    "write": [
        Effect(f"--write {PATH}", "sites", "--kind sae"),
        Refusal(f"--write {PATH}", "needs --read and --write together"),
    ],
    "measure_every": [Effect("--measure-every 256", "log")],
    "track": [Refusal("--track mlflow", "unknown tracker 'mlflow'")],
    "finetune": [
        Effect(FINETUNE, "files"),
        Effect("--finetune local", "weights", FINETUNE),
    ],
    "finetune_tokens": [
        Effect("--finetune-tokens 5k", "weights", FINETUNE),
        Refusal("--finetune-tokens 1k", "--finetune-tokens 1000 does nothing without --finetune"),
    ],
    "dictionaries": [
        Effect("--dictionaries DICTS", "files", FINETUNE),
        Refusal("--dictionaries DICTS", "does nothing without --finetune"),
        Refusal(f"--dictionaries DICTS {FINETUNE} --k 4", "--k is a setting of ordinary training"),
    ],
    "layout": [Refusal("--layout data=1", "--layout data=1 does nothing without torchrun")],
    "seed": [Effect("--seed 1", "weights")],
    "device": [Refusal("--device cuda:99", "cuda:99")],
    "checkpoint_every": [Refusal("--checkpoint-every -1", "checkpoint_seconds is -1")],
}
"""What each flag does; torchrun's in tests/distributed, checkpoints in test_train_options."""
OF_OUTPUT = {"out", "json", "quiet", "threads", "resume"}
"""Those that change no result; see the last tests, and test_track."""


def test_every_flag_has_a_row() -> None:
    flags = {parameter.name for parameter in build().commands["train"].params}
    assert flags == TABLE.keys() | OF_OUTPUT


@pytest.fixture(scope="module")
def training(
    workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Ran]]:
    """Runs `train` with these words, which may name files by these names; each command once."""
    folder = tmp_path_factory.mktemp("flags")
    files = {"TEXT": folder / "text.txt", "OTHER": folder / "other.txt"}
    columns = [word_documents(100, longest=20, seed=seed) for seed in range(2)]
    for file, documents in zip(files.values(), columns, strict=True):
        file.write_text("\n".join(documents), encoding="utf-8")
    records = [json.dumps({"text": a, "other": b}) for a, b in zip(*columns, strict=True)]
    files["RECORDS"] = folder / "records.jsonl"
    files["RECORDS"].write_text("\n".join(records), encoding="utf-8")
    files |= {"DICTS": workshop.dictionaries, "MODEL": workshop.model}
    files["STRANGER"] = save_tiny_llama(folder / "stranger", seed=5)

    @cache
    def run(words: str) -> Ran:
        out = folder / f"run-{next(numbers)}"
        model = "" if "STRANGER" in words else "MODEL"
        data = "" if "--data" in words else "--data TEXT"
        sizes = "" if "DICTS" in words else SIZES
        words = f"--out {out} {model} {data} {sizes} {words}"  # the last of equal options counts
        for name, path in (files | {"CACHE": out / "cache"}).items():
            words = re.sub(rf"\b{name}\b", str(path), words)
        with redirect_stdout(StringIO()) as report, redirect_stderr(StringIO()) as remarks:
            code = main(["train", *words.split()])
        return Ran(out, Outcome(code, report.getvalue(), remarks.getvalue()))

    numbers = count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "load_model", cache(api.load_model))
        for function in (train, finetune):
            patch.setitem(function.__kwdefaults__, "held_out_tokens", 200)
        patch.setitem(Measurement.__init__.__kwdefaults__, "tokens", 200)
        patch.setattr(live, "FORWARD_TOKENS", 512)
        patch.setattr(live, "MOST_BLOCK_TOKENS", 512)
        yield run


def left(ran: Ran) -> dict[str, Any]:
    """What a run left, by where an effect may be seen."""
    assert ran.outcome.code == 0, ran.outcome.err
    files = sorted(path for path in ran.out.rglob("*") if path.is_file())
    log = ran.out / "metrics.jsonl"
    tensors = {
        f"{file.name}:{name}": tensor
        for file in ran.out.glob("layer_*.safetensors")
        for name, tensor in load_file(file).items()
    }
    return {
        "weights": {name: tensor.tolist() for name, tensor in tensors.items()},
        "shapes": {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()},
        "sites": read_manifest(ran.out, kind="dictionaries").config["training"].get("sites"),
        "files": [str(path.relative_to(ran.out)) for path in files],
        "log": log.read_text(encoding="utf-8") if log.exists() else None,
    }


@pytest.mark.parametrize("words", ["", FINETUNE])
def test_without_a_change_nothing_changes(training: Callable[[str], Ran], words: str) -> None:
    assert left(training(words)) == left(training(f"{words} --seed 0"))


@pytest.mark.parametrize(
    "row", [row for rows in TABLE.values() for row in rows if isinstance(row, Effect)], ids=str
)
def test_the_effect_of_a_flag(training: Callable[[str], Ran], row: Effect) -> None:
    before, after = left(training(row.beside)), left(training(f"{row.beside} {row.words}"))
    assert before[row.where] != after[row.where]
    if row.where == "weights":
        assert before["shapes"] == after["shapes"]


@pytest.mark.parametrize(
    "row", [row for rows in TABLE.values() for row in rows if isinstance(row, Refusal)], ids=str
)
def test_a_flag_that_means_nothing_is_refused(training: Callable[[str], Ran], row: Refusal) -> None:
    ran = training(f"{row.words} --quiet")
    assert_refused(ran.outcome, row.message)
    assert not ran.out.exists()


def test_flags_of_output(training: Callable[[str], Ran]) -> None:
    plain, quiet = (training(f"--tokens 1k {word}").outcome for word in ("", "--quiet"))
    assert "it is repeated" in plain.err and quiet.err == ""
    assert plain.out.startswith("Reconstruction") and "wrote" in quiet.out
    assert set(json.loads(training("--json").outcome.out)) >= {"out", "tokens", "layers"}


def test_threads(training: Callable[[str], Ran]) -> None:
    before = torch.get_num_threads()
    try:
        assert training(f"--threads {before + 1}").outcome.code == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_track(training: Callable[[str], Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    writers, _ = fake_tensorboard(monkeypatch), fake_wandb(monkeypatch)
    ran = training("--track tensorboard --measure-every 256 --json")
    assert ran.outcome.code == 0, ran.outcome.err
    assert writers[0].log_dir == str(ran.out / "tensorboard") and writers[0].points


def test_resume_and_out(training: Callable[[str], Ran]) -> None:
    fresh = training("--resume")
    assert "holds no checkpoint yet; starting from the beginning" in fresh.outcome.err
    assert left(fresh) == left(training(""))
    for words in ("", f"--dictionaries DICTS {FINETUNE}"):
        finished = training(f"{words} --json")
        assert json.loads(finished.outcome.out)["out"] == str(finished.out)
        again = training(f"{words} --json --resume --store float16 --out {finished.out}")
        assert f"the run in {finished.out} is finished; nothing was trained" in again.outcome.err
        assert json.loads(again.outcome.out) == json.loads(finished.outcome.out)
