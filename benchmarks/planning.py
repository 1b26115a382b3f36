"""Is a plan right about memory and speed? Plans beside real runs of the same trainings.

Every plan and every run is a process of its own on one thread. Memory is the largest resident
memory of the whole process, model loading, checkpoint and final measuring included. Speed counts
processor seconds in both, because other work may share the machine: tokens a processor second of
harvesting and training, as a run reports it. The largest case is stopped, resumed and finished, its
speed not compared: it has a few steps alone. From the repository's root:

    python -m benchmarks.planning
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.measure import hardware, measure, versions
from pellucid.core.files import write_text

RESULTS = Path(__file__).parent / "results" / "planning.json"
Record = dict[str, Any]
SPECIMEN = "specimen"
BIG = "131,072 features at width 1,024"
MEGABYTE = 2**20
HELD_OUT = 8192

# name -> model, settings of `train`
CASES: dict[str, tuple[str, Record]] = {
    "4 layers, 3,072 features": (SPECIMEN, {"num_features": 3072, "k": 12, "tokens": 81_920}),
    "24,576 features": (SPECIMEN, {"num_features": 24_576, "layers": [1], "tokens": 40_960}),
    "24,576 features, bfloat16": (
        SPECIMEN,
        {"num_features": 24_576, "layers": [1], "tokens": 40_960, "precision": "bfloat16"},
    ),
    "16,384 features at width 512": (
        "512",
        {"num_features": 16_384, "layers": [0, 1], "tokens": 24_576},
    ),
    "cross-layer transcoder": (
        SPECIMEN,
        {"num_features": 3072, "k": 12, "kind": "clt", "tokens": 40_960},
    ),
    "SAEs, running mean": (
        SPECIMEN,
        {"num_features": 3072, "k": 12, "kind": "sae", "average": 0.99, "tokens": 40_960},
    ),
    "batchtopk": (
        SPECIMEN,
        {"num_features": 6144, "layers": [1], "activation": "batchtopk", "tokens": 61_440},
    ),
    "jumprelu": (
        SPECIMEN,
        {"num_features": 6144, "layers": [1], "activation": "jumprelu", "tokens": 61_440},
    ),
    "from a cache in float16": (
        SPECIMEN,
        {"num_features": 3072, "k": 12, "tokens": 81_920, "cache_dtype": "float16"},
    ),
    "batches of 512": (
        SPECIMEN,
        {"num_features": 3072, "layers": [1], "batch_tokens": 512, "tokens": 40_960},
    ),
    "batches of 16,384": (
        SPECIMEN,
        {"num_features": 3072, "layers": [1], "batch_tokens": 16_384, "tokens": 98_304},
    ),
    BIG: ("1024", {"num_features": 131_072, "batch_tokens": 1024, "tokens": 4096}),
}


def random_llama(folder: Path, width: int) -> Path:
    """A Llama with random weights that reads the specimen's text."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from pellucid.specimen.packaged import model_path

    home = folder / f"llama-{width}"
    if not home.exists():
        tokenizer = AutoTokenizer.from_pretrained(model_path())
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=1 if width == 1024 else 2,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 64,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(home)
        tokenizer.save_pretrained(home)
    return home


def settings_of(name: str, folder: Path) -> tuple[str, Record]:
    model, settings = CASES[name]
    settings = {"precision": "float32"} | settings
    if model != SPECIMEN:
        model = str(random_llama(folder, int(model)))
    if "cache_dtype" in settings:
        settings = settings | {"cache": folder / "cache"}
    return model, settings


def planned(name: str, folder: Path) -> Record:
    """The plan, its speed in processor seconds."""
    import pellucid

    model, settings = settings_of(name, folder)
    found = pellucid.plan(
        pellucid.load_model(model), SPECIMEN, clock=time.process_time, probe_seconds=20, **settings
    )
    memory = found.best.memory
    return {
        "peak_mb": memory.peak / MEGABYTE,
        "rows_mb": {what: size / MEGABYTE for what, size in memory.rows.items()},
        "moments_mb": {what: size / MEGABYTE for what, size in memory.moments.items()},
        "tokens_per_second": found.tokens_per_second,
    }


def trained(name: str, folder: Path, *, stop: int | None = None, resume: bool = False) -> Record:
    """The run: its peak memory, and its speed in processor seconds."""
    import pellucid
    from pellucid.training import TrainingStoppedError, run

    run.time = SimpleNamespace(perf_counter=time.process_time)  # what a run counts
    model, settings = settings_of(name, folder)
    steps = 0

    def counted(progress: object) -> None:
        nonlocal steps
        steps += 1
        if steps == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def work() -> float | None:
        try:
            return pellucid.train(
                pellucid.load_model(model),
                SPECIMEN,
                folder / "out" / name.replace(" ", "-"),
                held_out_tokens=HELD_OUT if name != BIG else 1024,
                resume=resume,
                on_progress=counted,
                **settings,
            ).tokens_per_second
        except TrainingStoppedError:
            return None

    rate, cost = measure(work)
    return {"peak_mb": cost.peak_mb, "tokens_per_second": rate}


def process(what: str, name: str, folder: Path) -> Record:
    """Do it in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.planning", "--folder", str(folder)]
    command += ["--do", what, "--case", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compared(name: str, folder: Path) -> Record:
    """One case: planned, measured, and the ratios of planned to measured."""
    plan = process("plan", name, folder)
    if name == BIG:
        parts = [process("stop", name, folder), process("resume", name, folder)]
        run = {"peak_mb": max(part["peak_mb"] for part in parts), "parts": parts}
        speed = None
    else:
        run = process("train", name, folder)
        speed = plan["tokens_per_second"] / run["tokens_per_second"]
    memory = plan["peak_mb"] / run["peak_mb"]
    line = f"{name}: {plan['peak_mb']:.0f} MB planned, {run['peak_mb']:.0f} measured ({memory:.2f})"
    if speed is not None:
        line += f"; {plan['tokens_per_second']:.0f} tokens/s, {run['tokens_per_second']:.0f} "
        line += f"({speed:.2f})"
    print(line, flush=True)
    return {"plan": plan, "run": run, "memory_ratio": memory, "speed_ratio": speed}


def do(what: str, name: str, folder: Path) -> Record:
    import torch

    from pellucid.core.allocation import keep_freed_memory

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()  # as the command line does
    if what == "plan":
        return planned(name, folder)
    return trained(name, folder, stop=2 if what == "stop" else None, resume=what == "resume")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", help="only these; all by default")
    parser.add_argument("--folder", type=Path, help="work here (default: temporary)")
    parser.add_argument("--do", help="within a case's process")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.do:
        print(json.dumps(do(options.do, options.case[0], options.folder)))
        return
    known = json.loads(options.out.read_text())["cases"] if options.out.exists() else {}
    for name in options.case or CASES:
        with tempfile.TemporaryDirectory() as temporary:
            known[name] = compared(name, options.folder or Path(temporary))
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": hardware(),
            "versions": versions(["torch", "transformers", "safetensors"]),
            "threads": 1,
            "cases": {each: known[each] for each in CASES if each in known},
        }
        write_text(options.out, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
