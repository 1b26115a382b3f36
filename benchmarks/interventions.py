"""What do interventions cost: many clamps in one batch against other libraries, and idle edits?

`--part clamps`: 64 different feature clamps, each during the generation of 64 tokens, on the same
random model and transcoders with the same prompt, by every side in a process of its own; all must
write the same tokens. One generation a clamp costs the same for each, so `--measured` may run
fewer of them one by one and scale. `--part idle`: forwards under edits against plain ones, in
turn. From the repository's root, with pellucid importable:

    python -m benchmarks.interventions --circuit-tracer PYTHON --nnsight PYTHON

Ratios are of processor seconds, which other jobs on the machine disturb less than elapsed time.
Parts that are not run again stay in the results as they are.
"""

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import hardware, versions
from benchmarks.models import BenchmarkSize, build, random_prompt
from pellucid.core.files import write_text
from pellucid.dictionaries.checkpoint import load_dictionaries
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions import Add, Clamp, Gate, Intervention, at, generate, run
from pellucid.models.load import load_model

RESULTS = Path(__file__).parent / "results" / "interventions.json"
PROMPT_SEED = 7
VALUE = 4.0  # of every clamp; active features have about 0.3
OURS, CIRCUIT_TRACER, NNSIGHT = "pellucid", "circuit-tracer", "nnsight"
MODULES = {
    OURS: "benchmarks.pellucid_clamps",
    CIRCUIT_TRACER: "benchmarks.peers.circuit_tracer_clamps",
    NNSIGHT: "benchmarks.peers.nnsight_clamps",
}
WAYS = [
    (OURS, "one batch"),
    (OURS, "one by one"),
    (CIRCUIT_TRACER, "one by one"),
    (NNSIGHT, "one by one"),
    (NNSIGHT, "invokes"),
    (NNSIGHT, "by hand"),
]
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--circuit-tracer", help="Python of circuit-tracer")
    parser.add_argument("--nnsight", help="Python of nnsight")
    parser.add_argument("--part", choices=("clamps", "idle"), action="append")
    parser.add_argument("--folder", type=Path, help="keep the model (default: temporary)")
    parser.add_argument("--clamps", type=int, default=64)
    parser.add_argument(
        "--measured", type=int, default=64, help="clamps really run one by one; the rest is scaled"
    )
    parser.add_argument("--tokens", type=int, default=64, help="generated")
    parser.add_argument("--prompt", type=int, default=16, help="tokens")
    parser.add_argument("--repeats", type=int, default=25, help="of forwards, for idle edits")
    options = parser.parse_args()
    size = BenchmarkSize()
    parts: Record = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "transcoders").exists():
            build(folder, size)
        wanted = options.part or ["clamps", "idle"]
        if "clamps" in wanted:
            pythons = {
                OURS: sys.executable,
                CIRCUIT_TRACER: options.circuit_tracer,
                NNSIGHT: options.nnsight,
            }
            parts["clamps"] = clamps(folder, size, options, pythons)
        if "idle" in wanted:
            parts["idle"] = idle(folder, size, options)
    store(parts, {"hardware": hardware(), "threads": 1, "model": asdict(size)})


def store(parts: Record, header: Record) -> None:
    """Write the parts that were run; keep the others if they are of the same machine and model."""
    header = json.loads(json.dumps(header))
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = before if all(before.get(name) == value for name, value in header.items()) else {}
    write_text(RESULTS, json.dumps(kept | header | parts, indent=2) + "\n")


def dated(**values: Any) -> Record:
    """A part of the results, with today's date."""
    return {"date": datetime.now(UTC).date().isoformat(), **values}


def clamps(folder: Path, size: BenchmarkSize, options: Any, pythons: dict[str, Any]) -> Record:
    """Every side and way on the same clamps."""
    rng = random.Random(PROMPT_SEED)
    drawn = [
        (number % size.layers, rng.randrange(size.features), VALUE)
        for number in range(options.clamps)
    ]
    ids = random_prompt(options.prompt, vocabulary=size.vocabulary, seed=PROMPT_SEED)
    rows: list[Record] = []
    reference: list[list[int]] = []
    for side, way in WAYS:
        if not pythons[side]:
            print(f"{side}: no Python given; left out", file=sys.stderr)
            continue
        done = min(options.measured, len(drawn)) if way == "one by one" else len(drawn)
        job = {"ids": ids, "new_tokens": options.tokens, "clamps": drawn[:done]}
        (folder / "job.json").write_text(json.dumps(job))
        row = {"side": side, "way": way, "clamps_run": done}
        row |= one_way(pythons[side], MODULES[side], way, folder)
        row["cpu_s"] *= len(drawn) / done
        written = row.pop("tokens")
        reference = reference or written
        row["different_tokens"] = different(written, reference[:done])
        row["ratio"] = row["cpu_s"] / rows[0]["cpu_s"] if rows else 1.0
        print(f"{side}, {way}: {row['cpu_s']:.1f} s, {row['ratio']:.1f} of ours", flush=True)
        rows.append(row)
    return dated(
        clamps=options.clamps, new_tokens=options.tokens, prompt_tokens=options.prompt, ways=rows
    )


def one_way(python: str, module: str, way: str, folder: Path) -> Record:
    """Run one side in one way, in a process of its own."""
    out = folder / "clamps.json"
    named = {
        "model": folder / "model",
        "transcoders": folder / "transcoders",
        "job": folder / "job.json",
        "way": way,
        "repeats": 1 if way == "one by one" else 3,
        "out": out,
    }
    command = [python, "-W", "ignore", "-m", module]
    command += [f"--{name}={value}" for name, value in named.items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{module} failed ({done.returncode}):\n{done.stderr}")
    return json.loads(out.read_text())


def different(one: list[list[int]], other: list[list[int]]) -> int:
    """Tokens of two runs that differ."""
    pairs = zip(one, other, strict=True)
    return sum(a != b for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True))


@torch.no_grad()
def idle(folder: Path, size: BenchmarkSize, options: Any) -> Record:
    """Forwards and generations under edits that change nothing or little, against plain ones."""
    torch.set_num_threads(1)
    model = load_model(folder / "model")
    dictionaries = load_dictionaries(folder / "transcoders")
    prompts = [random_prompt(64, vocabulary=size.vocabulary, seed=seed) for seed in range(4)]
    site, vector = f"resid_post@{size.layers // 2}", torch.randn(size.d_model)
    closed = Gate(site=site, vector=vector, threshold=1e9)
    whole: dict[str, list[Intervention]] = {
        "add of strength 0 at every token": [Intervention(site, Add(vector, 0.0))],
        "gate that never opens": [Intervention(site, Add(vector), gate=closed)],
        "clamp at every token": [
            Intervention(f"feature@{size.layers // 2}[{row}]", Clamp(VALUE), rows=(row,))
            for row in range(len(prompts))
        ],
    }
    prompt_only = {"add at one prompt token": [Intervention(site, Add(vector), at(5))]}

    def needed(edits: list[Intervention]) -> DictionarySet | None:
        return dictionaries if any(isinstance(each.op, Clamp) for each in edits) else None

    def forward(edits: list[Intervention]) -> Callable[[], object]:
        return lambda: run(model, prompts, edits, dictionaries=needed(edits))

    def written(edits: list[Intervention]) -> Callable[[], object]:
        return lambda: generate(model, prompts, edits, max_new_tokens=16, eos_token_id=-1)

    rows = []
    for what, make, cases in (("forward", forward, whole), ("generation", written, prompt_only)):
        functions = {"plain": make([])} | {name: make(edits) for name, edits in cases.items()}
        seconds = in_turn(functions, options.repeats if what == "forward" else 15)
        for name in cases:
            ratios = [a / b - 1 for a, b in zip(seconds[name], seconds["plain"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            fastest = min(seconds[name]) / min(seconds["plain"]) - 1
            rows.append(
                {
                    "what": what,
                    "edit": name,
                    "plain_s": statistics.median(seconds["plain"]),
                    "overhead": middle,
                    "quartiles": [low, high],
                    "overhead_of_fastest": fastest,
                    "repeats": len(ratios),
                }
            )
            print(
                f"{what}, {name}: {middle:+.1%} [{low:+.1%}, {high:+.1%}]; fastest {fastest:+.1%}"
            )
    return dated(versions=versions(("pellucid", "torch", "transformers")), cases=rows)


def in_turn(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each function, one after the other, over and over."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(repeats + 1):
        for name, function in functions.items():
            gc.collect()
            start = time.process_time()
            function()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    main()
