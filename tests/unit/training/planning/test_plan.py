"""A plan measured on a tiny model, what it refuses, and its memory beside a real run's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pellucid
from pellucid.core.errors import ConfigError
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.training.planning import Hardware, Plan
from support.tiny_models import save_tiny_llama, tiny_model, word_tokenizer
from support.word_text import word_documents

SMALL = {"num_features": 96, "k": 4, "batch_tokens": 128, "tokens": 1024}
STATED = Hardware(tflops=10, memory=1, bandwidth=100)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    tokenizer = word_tokenizer()
    return load_model(tiny_model("llama", tokenizer=tokenizer), tokenizer)


def quick(model: LanguageModel, **settings: object) -> Plan:
    text = TextList(word_documents(100, longest=30))
    return pellucid.plan(model, text, probe_seconds=0.2, **SMALL | settings)


@pytest.mark.parametrize("kind", ["transcoder", "clt"])
def test_every_part_is_measured(model: LanguageModel, kind: str, tmp_path: Path) -> None:
    told: list[str] = []
    found = quick(
        model,
        kind=kind,
        cache=tmp_path / "cache",
        cache_dtype="int8",
        on_probe=lambda what, share: told.append(what),
    )
    rates = found.rates
    assert rates is not None
    assert rates.store is not None and rates.read is not None
    assert min(rates.harvest, rates.batch, rates.store, rates.read) > 0
    assert rates.step + rates.token > 0
    assert told[0] == "reading text and running the model"
    assert told[-1] == "training steps"
    assert not (tmp_path / "cache").exists()
    record = found.to_json()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["disk"]["cache"] > 0
    assert record["speed"]["from"] == "measured"
    assert record["speed"]["hours"] >= record["speed"]["caching_hours"] > 0
    assert sum(record["memory"]["rows"].values()) <= record["memory"]["peak"]
    assert record["fits"] and record["remedies"] == []


def test_random_tokens_stand_in_for_text(model: LanguageModel) -> None:
    found = pellucid.plan(model, probe_seconds=0.2, **SMALL)
    assert found.tokens_per_second is not None and found.tokens_per_second > 0
    assert any("random tokens" in note for note in found.assumptions)


def test_stated_hardware_needs_no_weights(model: LanguageModel, tmp_path: Path) -> None:
    bare = load_model(save_tiny_llama(tmp_path), weights=False)
    stated = pellucid.plan(bare, hardware=STATED, processes=6, gpu=True, **SMALL)
    assert stated.speed == "stated"
    assert stated.available == 10**9
    assert stated.disks == {}
    assert len(stated.options) == 5
    assert stated.to_json()["parameters"] == quick(model).to_json()["parameters"]
    with pytest.raises(ConfigError, match="loaded without weights, so nothing can be measured"):
        pellucid.plan(bare, **SMALL)


def test_what_does_not_fit_is_said_with_what_would(model: LanguageModel) -> None:
    whole = quick(model, num_features=2**16)
    limit = whole.best.memory.peak - 20 * 2**20
    found = quick(model, num_features=2**16, memory=limit)
    (problem,) = found.problems
    assert problem.startswith("a process needs ")
    assert any(text.startswith("--features ") for text in found.remedies)
    assert found.reason == "none fits; this one needs least memory"


def test_a_dictionary_that_is_far_too_large_is_not_measured(model: LanguageModel) -> None:
    found = quick(model, num_features=2**24, memory=10**9)
    assert found.rates is None and found.speed == "unknown"
    assert found.tokens_per_second is None
    assert found.to_json()["speed"]["hours"] is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layout": "data=3", "processes": 2}, "takes 3 processes but there are 2"),
        ({"layout": "layers=7", "processes": 7}, "does not suit this training; use one of"),
        ({"processes": 7 * 11}, "77 processes cannot share this training"),
        ({"processes": 0}, "processes is 0; give a positive number"),
        ({"tokens": 0}, "tokens is 0; give a positive number"),
        ({"cache_dtype": "int8"}, "cache_dtype and cache_order are of a cache"),
        ({"cache": "x", "cache_dtype": "int4"}, "int4"),
        ({"k": 97}, "k is 97 but there are only 96 features"),
        ({"layers": [9]}, "layer 9 does not exist"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    model: LanguageModel, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        quick(model, **settings)
    assert words in str(caught.value)


RUN = """
import json, sys, pellucid, torch
torch.set_num_threads(1)
model = pellucid.load_model("specimen")
settings = dict(num_features=12288, k=16, layers=[1], tokens=4096, batch_tokens=2048)
plan = pellucid.plan(
    model, hardware=pellucid.training.planning.Hardware(tflops=1, memory=9, bandwidth=9), **settings
)
pellucid.train(model, "specimen", sys.argv[1], held_out_tokens=512, **settings)
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps([plan.best.memory.peak, int(status["VmHWM"].split()[0]) * 1024]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read on Linux")
def test_a_run_holds_what_was_planned_within_15_percent(tmp_path: Path) -> None:
    code = RUN.replace("import json,", "import pellucid.training.planning, json,")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    planned, measured = json.loads(done.stdout.splitlines()[-1])
    assert planned == pytest.approx(measured, rel=0.15)
