"""Trainings killed at random moments and resumed, and what a damaged file of theirs does.

Every kill is SIGKILL to a real `pellucid train` (two processes of torchrun in some), at a moment
drawn uniformly, by the seed, from the time that the same training took without interruption, or
from one part of that time. Then `--resume`: the dictionaries must be those of the uninterrupted
training byte for byte. Then every file of the artifacts that such trainings leave is damaged in
every way of `benchmarks.damage`. One thread a process. From the repository's root:

    python -m benchmarks.faults
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.damage import survey
from benchmarks.measure import hardware, versions
from pellucid.core.files import write_text
from pellucid.dictionaries.checkpoint import load_dictionaries
from pellucid.harvest.cache.cache import open_cache
from pellucid.training.run_checkpoint import load_newest

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "faults.json"
SMALL = ["--tokens", "16k", "--features", "512", "--k", "4", "--layers", "0"]
SMALL += ["--batch-tokens", "512"]
FEW = ["--tokens", "8k", *SMALL[2:3], "64", *SMALL[4:]]
POLL_S = 0.003
ENDED = "nothing: it had ended"
LIMIT_S = 600
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A training and when it is killed.

    Attributes:
        name: of it.
        words: its options; `{work}` stands for its folder.
        clock: patterns below that folder; time counts from when a path of one comes to be.
        passing: whether it counts only until no such path is left; else until the training ends.
        kills: how many trainings are killed.
        times: how often each is killed before it may end.
        processes: of torchrun; 1 is without it.
        victim: which of them is killed: "all"; "one", drawn at random; "launcher", torchrun alone.
    """

    name: str
    words: tuple[str, ...]
    clock: tuple[str, ...] = ("out", "cache")
    passing: bool = False
    kills: int = 4
    times: int = 1
    processes: int = 1
    victim: str = "all"

    def command(self, work: Path, *more: str) -> list[str]:
        """What is run."""
        start = [sys.executable, "-m"]
        if self.processes > 1:
            start += ["torch.distributed.run", "--standalone"]
            start += [f"--nproc-per-node={self.processes}", "-m"]
        words = [word.format(work=work) for word in self.words]
        common = ["--threads", "1", "--quiet", "--json", "--out", str(work / "out")]
        return [*start, "pellucid", "train", "specimen", *words, *common, *more]


def scenarios() -> list[Scenario]:
    """Every training that is killed."""
    often = ("--checkpoint-every", "0")
    spread = ("--tokens", "12k", *SMALL[2:], *often)
    ending = ("out/.export", "out/..export*")
    cached = ("--tokens", "48k", *SMALL[2:7], "0-1", "--cache", "{work}/cache")
    kl = ("--tokens", "4k", "--features", "256", "--k", "4", "--batch-tokens", "512")
    kl += ("--finetune", "kl", "--finetune-tokens", "6k", *often)
    return [
        Scenario(
            name="live", words=("--tokens", "60k", *SMALL[2:], "--checkpoint-every", "1"), kills=4
        ),
        Scenario(name="a checkpoint every step", words=(*SMALL, *often), kills=4),
        Scenario(
            name="four times in a row",
            words=("--tokens", "30k", *SMALL[2:], *often),
            clock=("out/checkpoints/checkpoint-*",),
            kills=1,
            times=4,
        ),
        Scenario(name="filling a cache", words=cached, clock=("cache",), kills=3),
        Scenario(
            name="from the export on", words=(*SMALL[:3], "8192", *SMALL[4:]), clock=ending, kills=3
        ),
        Scenario(
            name="within the third checkpoint",
            words=("--tokens", "4k", "--features", "8192", *SMALL[4:], *often),
            clock=("out/checkpoints/.checkpoint-00000000001536*",),
            passing=True,
            kills=3,
        ),
        Scenario(
            name="within the second shard",
            words=("--tokens", "60k", *cached[2:]),
            clock=("cache/.shard-00001*",),
            passing=True,
            kills=3,
        ),
        Scenario(
            name="within the export",
            words=(*SMALL[:3], "16384", *SMALL[4:]),
            clock=ending,
            passing=True,
            kills=3,
        ),
        Scenario(name="fine-tuning", words=kl, clock=("out/checkpoints",), kills=2),
        *(
            Scenario(
                name=f"two processes, {axis}, {victim} killed",
                words=(*spread, "--layout", f"{axis}=2"),
                kills=1,
                processes=2,
                victim=victim,
            )
            for axis in ("data", "features")
            for victim in ("one", "all")
        ),
        Scenario(
            name="two processes, features, launcher killed",
            words=("--tokens", "60k", *spread[2:], "--layout", "features=2"),
            kills=1,
            processes=2,
            victim="launcher",
        ),
    ]


def started(command: list[str]) -> "subprocess.Popen[str]":
    """A process of one computing thread."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_clock(process: "subprocess.Popen[str]", scenario: Scenario, work: Path) -> bool:
    """Wait until the scenario's clock starts; whether it did before the process ended."""
    before = signs(scenario, work)
    while process.poll() is None:
        if signs(scenario, work) - before:
            return True
        time.sleep(POLL_S)
    return False


def signs(scenario: Scenario, work: Path) -> set[Path]:
    """What there is that starts the clock."""
    return {path for pattern in scenario.clock for path in work.glob(pattern)}


def uninterrupted(scenario: Scenario, work: Path) -> float:
    """Run it to its end; the seconds that its clock ran."""
    process = started(scenario.command(work))
    assert until_clock(process, scenario, work), process.communicate()[1]
    began = time.monotonic()
    while process.poll() is None and (not scenario.passing or signs(scenario, work)):
        time.sleep(POLL_S)
    seconds = time.monotonic() - began
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    return seconds


def killed(scenario: Scenario, work: Path, whole: Path, wait: float, draw: random.Random) -> Record:
    """Start it, kill it when its clock shows `wait`, and say what was going on."""
    process = started(scenario.command(work, "--resume"))
    until_clock(process, scenario, work)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=wait)
        return {"during": ENDED}
    team = [process.pid, *workers(process.pid)]
    victims = {"all": team, "launcher": team[:1], "one": [draw.choice(team[1:] or team)]}
    with suppress(ProcessLookupError):
        for victim in victims[scenario.victim]:
            os.kill(victim, signal.SIGKILL)
    during = going_on(work, whole)
    began = time.monotonic()
    if process.wait(timeout=LIMIT_S) == 0:
        return {"during": ENDED}
    record: Record = {"during": during}
    if scenario.victim == "launcher":  # its processes go on, and keep others out
        record["meanwhile"] = resumed(scenario, work, work)
    while any(map(alive, team)):
        time.sleep(POLL_S)
    return record | {"all_ended_after_s": time.monotonic() - began}


def workers(torchrun: int) -> list[int]:
    """The processes that a process started (torchrun gives each a session of its own)."""
    children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    return [int(child) for child in children]


def alive(process: int) -> bool:
    """Whether a process is there, and not just the remains of one that nobody asked for."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False


def going_on(work: Path, whole: Path) -> str:
    """What a training was doing, by what is on the disk."""
    ends = []
    for name in ("out", "out/before"):
        with suppress(FileNotFoundError):
            results = json.loads((whole / name / "manifest.json").read_text())["results"]
            ends.append(f"{name}/checkpoints/checkpoint-{results['tokens']:014d}")
    signs = [
        ("writing the model card", "out/manifest.json"),
        ("exporting", "out/.export"),
        ("exporting", "out/..export*"),
        ("writing a checkpoint", "out/**/.checkpoint-*"),
        *(("measuring at the end", end) for end in ends),
        ("between two checkpoints", "out/**/checkpoint-*"),
        ("training, no checkpoint yet", "out/**/metrics.jsonl"),
        ("filling the first buffer", "out"),
        ("writing a shard", "cache/.shard*.tmp"),
        ("filling the cache", "cache"),
    ]
    return next((what for what, sign in signs if any(work.glob(sign))), "starting")


def resumed(
    scenario: Scenario, work: Path, whole: Path, pattern: str = "**/*.safetensors"
) -> Record:
    """Resume it to its end and compare it with the one that was never killed."""
    process = started(scenario.command(work, "--resume"))
    _, errors = process.communicate(timeout=LIMIT_S)
    if process.returncode:
        said = [line for line in errors.splitlines() if "another process" in line]
        return {"outcome": "refused", "message": (said or errors.splitlines())[-1]}
    names = sorted(path.relative_to(whole) for path in whole.glob(pattern))
    differing = [str(n) for n in names if (work / n).read_bytes() != (whole / n).read_bytes()]
    left = sorted(str(path.relative_to(work)) for path in work.rglob(".*") if path.name != ".lock")
    return {
        "outcome": "differs" if differing else "bit-identical",
        "bytes_compared": sum((whole / name).stat().st_size for name in names),
        "differing": differing,
        "left_behind": left,
    }


def kills(scenario: Scenario, folder: Path, draw: random.Random) -> Iterator[Record]:
    """A record a training that is killed (all its kills) and resumed."""
    whole = folder / "whole"
    seconds = uninterrupted(scenario, whole)
    for number in range(scenario.kills):
        work = folder / f"killed-{number}"
        moments = []
        for _ in range(scenario.times):
            share = draw.random()
            moments.append(
                {"share": share}
                | killed(scenario, work, whole, share * seconds / scenario.times, draw)
            )
        record: Record = {"scenario": scenario.name, "uninterrupted_s": seconds}
        record |= {"kills": moments} | resumed(scenario, work, whole)
        shutil.rmtree(work, ignore_errors=True)
        print(json.dumps(record), flush=True)
        yield record
    shutil.rmtree(whole)


def stopped(scenario: Scenario, work: Path) -> None:
    """Run it until it has two checkpoints, and kill it."""
    process = started(scenario.command(work))
    while len(list(work.glob("out/checkpoints/checkpoint-*"))) < 2 or any(
        work.glob("out/checkpoints/.checkpoint-*")
    ):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(POLL_S)
    for each in (process.pid, *workers(process.pid)):
        os.kill(each, signal.SIGKILL)
    process.communicate()


def loaded(folder: Path) -> Any:
    """What a checkpoint says, its tensors by their sum."""
    found = load_newest(folder)
    sums = {
        f"{part}.{name}": float(tensor.double().sum())
        for part, named in found.tensors.items()
        for name, tensor in named.items()
    }
    return found.tokens, found.state, found.stream, sums


def damaged(folder: Path, draw: random.Random) -> Record:
    """What every damage does, by artifact, file and kind of damage."""
    cached = Scenario(name="", words=(*FEW, "--cache", "{work}/cache"))
    alone = Scenario(name="", words=(*FEW, "--checkpoint-every", "0"))
    spread = Scenario(name="", words=(*alone.words, "--layout", "features=2"), processes=2)
    whole = folder / "whole"
    uninterrupted(cached, whole)
    found: Record = {}
    for name, scenario in (("checkpoint", alone), ("checkpoint of two processes", spread)):
        work = folder / name
        stopped(scenario, work)
        checkpoints = work / "out" / "checkpoints"
        files = sorted(max(checkpoints.glob("checkpoint-*")).iterdir())
        found[name] = counted(files, lambda at=checkpoints: loaded(at), draw)
        if scenario is alone:
            resumes = resumed_from_damage(scenario, work, files, whole, draw)
    files = sorted((whole / "cache").glob("[!.]*"))
    found["cache"] = counted(files, lambda: open_cache(whole / "cache").shards, draw)
    out = whole / "out"
    files = [out / "manifest.json", *sorted(out.glob("layer_*"))]
    found["dictionaries"] = counted(files, lambda: str(load_dictionaries(out).manifest), draw)
    return {"artifacts": found, "resumes": resumes}


def counted(files: list[Path], opened: Callable[[], Any], draw: random.Random) -> Record:
    """The survey of an artifact's files, JSON-able."""
    sizes = {path.name: path.stat().st_size for path in files}
    return {
        name: {"bytes": sizes[name]}
        | {what: dict(verdicts) for what, verdicts in by_damage.items()}
        for name, by_damage in survey(files, opened, draw).items()
    }


def resumed_from_damage(
    scenario: Scenario, work: Path, files: list[Path], whole: Path, draw: random.Random
) -> dict[str, Record]:
    """Flip a bit of each file of the newest checkpoint, resume to the end, and compare."""
    found = {}
    for path in files:
        copy = work.with_name("resumed")
        shutil.copytree(work, copy)
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (copy / path.relative_to(work)).write_bytes(content)
        found[path.name] = resumed(scenario, copy, whole, "out/*.safetensors")
        shutil.rmtree(copy)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--done", type=Path, help="file of scenarios that need no repetition")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[str, list[Record]] = {}
    if arguments.done and arguments.done.exists():
        done = json.loads(arguments.done.read_text())
    with tempfile.TemporaryDirectory() as folder:
        for number, scenario in enumerate(scenarios()):
            if scenario.name not in done:
                draw = random.Random(f"{arguments.seed} {scenario.name}")
                done[scenario.name] = list(kills(scenario, Path(folder) / str(number), draw))
                if arguments.done:
                    write_text(arguments.done, json.dumps(done))
        damage = damaged(Path(folder) / "damage", random.Random(arguments.seed))
    trainings = [record for scenario in scenarios() for record in done[scenario.name]]
    print(Counter(record["outcome"] for record in trainings))
    result = {
        "seed": arguments.seed,
        "trainings": trainings,
        "damage": damage,
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions(["torch", "safetensors", "transformers"]),
    }
    write_text(RESULTS, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
