"""From text to four transcoders of the specimen: our whole pipeline beside sparsify's.

Both train on the same packed rows (256 tokens, special tokens left out), each with its own defaults
but for the number of features, k and tokens. Ours caches the activations (int8) and trains from the
cache: one command, whose whole process counts, starting included. Theirs is handed rows of token
ids and only its trainer's `fit` counts; its fastest mode (bfloat16) is timed on `--speed-tokens`.
One thread each, at the same time on two cores, in processor seconds. Held-out text decides, packed
likewise and a document a row. It goes on in the same folder.

    python -m benchmarks.end_to_end --work FOLDER --sparsify-python .../bin/python
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch

from benchmarks.measure import hardware
from pellucid import api
from pellucid.cli.values import parse_count
from pellucid.core.manifest import software_versions
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.fidelity import measure_dictionaries
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.rows import TokenRows
from pellucid.harvest.sources import open_text
from pellucid.harvest.stream import ActivationStream
from pellucid.specimen.packaged import model_path

RESULTS = Path(__file__).parent / "results" / "end_to_end.json"
LENGTH = 256
HELD_OUT = 200_000


def write_rows(work: Path, tokens: int) -> tuple[Path, list[int]]:
    """The rows that hold `tokens` tokens of text, and the special tokens in them."""
    model = api.load_model("specimen")
    source = open_text("specimen").split("train")
    rows = TokenRows(source, model, length=LENGTH, packing="packed")
    special = sorted(model.special_tokens.structural)
    path = work / "rows.npy"
    if not path.exists():
        kept, seen = [], 0
        for row in rows:
            kept.append(numpy.asarray(row.ids, dtype=numpy.int16))
            seen += len(row.text)
            if seen >= tokens:
                break
        full = [row for row in kept if len(row) == LENGTH]
        numpy.save(work / "rows.part.npy", numpy.stack(full))
        (work / "rows.part.npy").rename(path)
    return path, special


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Cache and train in one command; its processor seconds, the start of Python included."""
    work = options.work
    out, cache, found = work / "ours", work / "cache", work / "ours.json"
    if found.exists():
        return json.loads(found.read_text())
    command = [sys.executable, "-W", "ignore", "-m", "pellucid", "train", "specimen"]
    command += ["--data", "specimen", "--tokens", str(options.tokens), "--packing", "packed"]
    command += ["--features", str(options.features), "--k", str(options.k), "--threads", "1"]
    command += ["--cache", str(cache), "--cache-dtype", "int8", "--out", str(out), "--json"]
    command += ["--resume"] if out.exists() else []
    record = _run(command, work / "ours.log")
    record["tokens"] = json.loads(record.pop("stdout"))["tokens"]
    record["resumed"] = "--resume" in command
    found.write_text(json.dumps(record, indent=2))
    shutil.rmtree(cache)
    return record


def theirs(options: argparse.Namespace, mode: str, tokens: int) -> dict[str, Any]:
    """Sparsify's trainer on the first rows that hold so many tokens."""
    out = options.work / f"sparsify-{mode}"
    out.mkdir(exist_ok=True)
    found = out / "measurement.json"
    if not found.exists():
        rows, special = write_rows(options.work, options.tokens)
        command = [options.sparsify_python, "-W", "ignore", "-m", "benchmarks.peers.sparsify_train"]
        command += ["--model", str(model_path()), "--rows", str(rows), "--out", str(out)]
        command += ["--exclude", json.dumps(special), "--features", str(options.features)]
        command += ["--k", str(options.k), "--mode", mode, "--count", str(tokens // LENGTH)]
        _run(command, out / "log")
    return json.loads(found.read_text())


def _run(command: list[str], log: Path) -> dict[str, Any]:
    """Run it to its end; what it printed and what it and its children cost."""
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        stdout = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command[:5])} failed; see {log}")
    return {
        "stdout": stdout,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.perf_counter() - start,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def measured(folder: Path, packing: str) -> list[dict[str, Any]]:
    """FVU, L0 and dead share by layer on held-out text."""
    model = api.load_model("specimen")
    dictionaries = api.load_dictionaries(folder, model=model)
    sites = [site for d in dictionaries for site in (d.read_site, d.write_site)]
    config = HarvestConfig(context_length=LENGTH, packing=packing)
    source = LiveActivations(model, open_text("specimen").split("heldout"), sites, config)
    stream = ActivationStream(source, batch_tokens=4096, fill_batches=4, seed=0)
    batches = islice(stream, HELD_OUT // 4096 + 1)
    figures = measure_dictionaries(dictionaries.dictionaries, batches, tokens=HELD_OUT)
    return [figure.to_json() for figure in figures]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sparsify-python", required=True)
    parser.add_argument("--tokens", type=parse_count, default=20_000_000)
    parser.add_argument("--speed-tokens", type=parse_count, default=400_000)
    parser.add_argument("--features", type=int, default=3072)
    parser.add_argument("--k", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    write_rows(options.work, options.tokens)
    with ThreadPoolExecutor(2) as pool:
        mine = pool.submit(ours, options)
        peer = pool.submit(theirs, options, "default", 2 * options.tokens)
    sides = {"ours": mine.result(), "sparsify": peer.result()}
    for name, folder in (("ours", "ours"), ("sparsify", "sparsify-default/run")):
        for packing in ("packed", "documents"):
            sides[name][packing] = measured(options.work / folder, packing)
    sides["sparsify, bfloat16"] = theirs(options, "autocast", options.speed_tokens)
    record: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": software_versions(),
        "tokens": options.tokens,
        "features": options.features,
        "k": options.k,
        "sides": sides,
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
