"""A file of prompts becomes one dataset, whoever does which part and however often it stops."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pellucid.attribution.many import PART, NamedPrompt, Share, read_prompts, trace_prompts
from pellucid.attribution.trace import trace
from pellucid.core.errors import CheckpointError, DataError, PromptError
from pellucid.graphs.formats.parquet import read_parquet
from pellucid.models.load import load_model
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import tiny_model, word_tokenizer

PROMPTS = [NamedPrompt(f"g{n}", [5 + n, 6, 7 + n]) for n in range(2 * PART + 3)]


@pytest.fixture(scope="module")
def llama():
    model = load_model(tiny_model("llama"), word_tokenizer())
    return model, tiny_transcoders(model)


def test_two_processes_write_what_one_does(llama, tmp_path):
    model, dictionaries = llama
    settings = {"causal": False, "max_features": 9}
    alone = trace_prompts(model, PROMPTS, dictionaries, tmp_path / "one", **settings)
    assert alone == {"traced": len(PROMPTS), "found": 0}
    for rank in (1, 0):
        trace_prompts(
            model, PROMPTS, dictionaries, tmp_path / "two", share=Share(rank, 2), **settings
        )
    one, two = (dict(read_parquet(tmp_path / name)) for name in ("one", "two"))
    assert list(one) == [prompt.name for prompt in PROMPTS]
    assert set(two) == set(one)
    for name, graph in one.items():
        np.testing.assert_array_equal(graph.edges.weight, two[name].edges.weight)
    direct = trace(model, PROMPTS[4].prompt, dictionaries, **settings)
    np.testing.assert_array_equal(one["g4"].edges.weight, direct.edges.weight)


def test_a_run_that_was_stopped_goes_on_with_whole_parts(llama, tmp_path):
    model, dictionaries = llama
    told = []

    def stop(done, total):
        told.append((done, total))
        if done == PART + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trace_prompts(model, PROMPTS, dictionaries, tmp_path, causal=False, on_progress=stop)
    assert [path.name for path in tmp_path.glob("part-*")] == ["part-00000"]
    again = trace_prompts(model, PROMPTS, dictionaries, tmp_path, causal=False)
    assert again == {"traced": len(PROMPTS) - PART, "found": PART}
    assert told[-1] == (PART + 2, len(PROMPTS))
    with pytest.raises(CheckpointError, match="made with other settings"):
        trace_prompts(model, PROMPTS, dictionaries, tmp_path, causal=False, max_features=3)
    with pytest.raises(CheckpointError, match="made with other prompts, prompts_sha256"):
        trace_prompts(model, PROMPTS[:3], dictionaries, tmp_path, causal=False)


def test_a_bad_prompt_is_named_before_anything_is_traced(llama, tmp_path):
    model, dictionaries = llama
    bad = [*PROMPTS, NamedPrompt("last", "w5 nonsense")]
    with pytest.raises(PromptError, match="prompt 'last'"):
        trace_prompts(model, bad, dictionaries, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prompts_are_read_from_text_and_json_lines(tmp_path):
    plain, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text("w5 w6\n\n w7 \n")
    assert read_prompts(plain) == [NamedPrompt("000001", "w5 w6"), NamedPrompt("000003", "w7")]
    lines.write_text('{"prompt": "w5", "id": "x"}\n{"ids": [1, 2]}\n')
    assert read_prompts(lines) == [NamedPrompt("x", "w5"), NamedPrompt("000002", [1, 2])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no prompt"),
        ("{", r"b.jsonl:1 is no prompt"),
        ('{"prompt": 5}', "is no prompt"),
        ('{"ids": "ab"}', "is no prompt"),
        ("[" * 100_000, "is no prompt"),
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}', "2 prompts with the id '1'"),
    ],
)
def test_files_without_prompts_are_refused(tmp_path, content, message):
    (tmp_path / "b.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_prompts(tmp_path / "absent.txt")


def test_torchrun_shares_the_prompts_out(tmp_path):
    """Two real processes of the command line on gloo."""
    prompts = tmp_path / "prompts.txt"
    words = ("texas", "ohio", "georgia")
    prompts.write_text("".join(f"the capital of {word} is\n" for word in words * 8))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = Path(__file__).parents[3] / "src"
    run = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "pellucid"),
        *("trace", "specimen", "--prompts", str(prompts), "--out", str(tmp_path / "out")),
        *("--no-causal", "--max-features", "20", "--json", "--quiet"),
    ]
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["traced"], record["found"], record["processes"]) == (24, 0, 2)
    assert len(list(read_parquet(tmp_path / "out"))) == 24
