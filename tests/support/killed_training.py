"""Trainings of processes that are killed at operations on the file system, and then resumed.

`python -m support.killed_training FOLDER SEED KILLS` forks a training from a cache that it fills,
with a checkpoint a step, and a fine-tuning. `KILLS` times each kills itself just before an
operation that the seed draws from all it makes, resumes, and is killed again. The last one ends.
Prints `killed N`, and what differs from a training that was never interrupted.
"""

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure  # noqa: F401  (once, here, and not in every child)
import torch

from pellucid.harvest.text import TextList
from pellucid.training import train
from pellucid.training.finetune import finetune
from support.cache_process import EVENTS, in_child
from support.finetuning import TEXT, tiny_subject, trained_transcoders
from support.word_text import word_documents

Work = Callable[[Path], object]


def train_from_cache(folder: Path) -> None:
    """Twelve steps, three fills of the buffer."""
    train(
        tiny_subject(),
        TextList(word_documents(100, longest=40)),
        folder / "out",
        tokens=12 * 64,
        batch_tokens=64,
        shuffle_tokens=4 * 64,
        num_features=32,
        k=4,
        learning_rate=3e-3,
        held_out_tokens=200,
        cache=folder / "cache",
        resume=True,
        checkpoint_seconds=0.0,
    )


def fine_tune(folder: Path) -> None:
    """Four steps."""
    finetune(
        tiny_subject(),
        trained_transcoders(steps=2),
        TEXT,
        folder / "out",
        tokens=4 * 128,
        batch_tokens=128,
        held_out_tokens=100,
        resume=True,
        checkpoint_seconds=0.0,
    )


def operations(folder: Path, at: Callable[[int], None]) -> None:
    """Call `at` with its number before every operation below a folder."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in EVENTS and str(arguments[0]).startswith(str(folder)):
            seen += 1
            at(seen)

    sys.addaudithook(hook)


def count(work: Work, folder: Path, note: Path) -> int:
    """Do it, in a child, and count its operations."""

    def counted() -> None:
        operations(folder, lambda number: numbers.append(number))
        work(folder)
        note.write_text(str(len(numbers)))

    numbers: list[int] = []
    assert in_child(counted) == 0
    return int(note.read_text())


def kill(work: Work, folder: Path, moment: int) -> bool:
    """Do it in a child that dies before operation `moment`; whether it came so far."""

    def die(number: int) -> None:
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying() -> None:
        operations(folder, die)
        work(folder)

    ended = in_child(dying)
    assert ended in (0, -signal.SIGKILL), ended
    return ended != 0


def content(folder: Path) -> dict[str, bytes]:
    """All that must be the same, and the names of what must not be there."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.suffix == ".safetensors" else b""
        for path in files
    }


def main(base: str, seed: str, kills: str) -> None:
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # what a killed process wrote, the system keeps
    draw, killed = random.Random(int(seed)), 0
    for work in (train_from_cache, fine_tune):
        whole = Path(base) / f"{work.__name__}-whole"
        made = count(work, whole, Path(base) / "count")
        for number in range(int(kills)):
            folder = Path(base) / f"{work.__name__}-{number}"
            for _ in range(2):
                killed += kill(work, folder, draw.randrange(1, made + 1))
            assert in_child(lambda folder=folder, work=work: work(folder)) == 0, folder
            if content(folder) != content(whole):
                print("differs", folder, sorted(content(folder).keys() ^ content(whole).keys()))
    print("killed", killed)


if __name__ == "__main__":
    main(*sys.argv[1:])
