"""What every side of the clamping benchmark reads and writes. Standard library only.

A job is one prompt, a number of tokens to generate greedily, and clamps `(layer, feature, value)`.
Each clamp is a generation of its own: at every token but BOS, the generated ones included,
`mlp_out + (value - relu(w_enc . mlp_in + b_enc)) w_dec`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import measure, versions

Tokens = list[list[int]]


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt and its clamps.

    Attributes:
        ids: of the prompt, BOS included.
        new_tokens: generated after it, whatever they are.
        clamps: layer, feature and value of each.
    """

    ids: list[int]
    new_tokens: int
    clamps: list[tuple[int, int, float]]


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of a side.

    Attributes:
        model, transcoders: folders.
        job: what to do.
        way: one of the side's ways of doing it.
        threads: of torch.
        repeats: how often the job is timed.
        out: file for the measurement and the tokens.
    """

    model: Path
    transcoders: Path
    job: Job
    way: str
    threads: int
    repeats: int
    out: Path


def parse_options(*ways: str) -> Options:
    """Read the command line of a side that can do the job in these ways."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--transcoders", type=Path, required=True)
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--way", choices=ways, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = vars(parser.parse_args())
    job = Job(**json.loads(given.pop("job").read_text()))
    return Options(job=job, **given)


def measure_job(options: Options, run: Callable[[Job], Tokens], packages: tuple[str, ...]) -> None:
    """Do a small job first, then time the whole one; write the new tokens of every clamp."""
    job = options.job
    run(Job(job.ids, 2, job.clamps[:2]))
    tokens, measurement = measure(lambda: run(job), repeats=options.repeats)
    assert len(tokens) == len(job.clamps), "one row of tokens a clamp"
    assert all(len(row) == job.new_tokens for row in tokens), "all new tokens, and no others"
    record = asdict(measurement) | {"versions": versions(packages), "tokens": tokens}
    options.out.write_text(json.dumps(record))
