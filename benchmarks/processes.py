"""Running one side of a tracing benchmark in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEER = "benchmarks.peers.circuit_tracer_trace"
OURS = "benchmarks.pellucid_trace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every run of one benchmark has in common.

    `folder` holds `model`, `transcoders` and, under `runs`, the last run of each kind. With
    `keep_peer` a run of the peer that is there already is taken as it is.
    """

    folder: Path
    peer_python: str
    threads: int = 1
    keep_peer: bool = False

    def run(
        self, module: str, ids: list[int], cap: int | None, *, repeats: int, **flags: int
    ) -> tuple[Path, dict[str, Any] | None]:
        """Measure one side; returns the folder it wrote and its measurement.

        `flags` are further options of the module; True stands for a switch. The measurement is None
        where the run ended at its limit of processor time.
        """
        side = "peer" if module == PEER else "ours"
        batch = f"-{flags['batch_size']}" if "batch_size" in flags else ""
        out = self.folder / "runs" / f"{side}-{len(ids)}-{cap}{batch}"
        found = out / "measurement.json"
        if not (self.keep_peer and module == PEER and found.exists()):
            found.unlink(missing_ok=True)
            if not self._start(module, ids, cap, repeats, out, flags):
                return out, None
        extra = {name: flags[name] for name in ("batch_size",) if name in flags}
        return out, json.loads(found.read_text()) | extra

    def _start(
        self,
        module: str,
        ids: list[int],
        cap: int | None,
        repeats: int,
        out: Path,
        flags: dict[str, int],
    ) -> bool:
        """Run it; False if it was ended at its limit."""
        named: dict[str, object] = {
            "model": self.folder / "model",
            "transcoders": self.folder / "transcoders",
            "ids": ",".join(map(str, ids)),
            "threads": self.threads,
            "repeats": repeats,
            "out": out,
        }
        if cap is not None:
            named["max-features"] = cap
        command = [self.peer_python if module == PEER else sys.executable, "-W", "ignore"]
        command += ["-m", module, *(f"--{name}={value}" for name, value in named.items())]
        for name, value in flags.items():
            flag = f"--{name.replace('_', '-')}"
            command.append(flag if value is True else f"{flag}={value}")
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode == -signal.SIGXCPU:
            return False
        if done.returncode != 0:
            raise SystemExit(f"{module} failed ({done.returncode}):\n{done.stderr}")
        return True


def numbers(text: str) -> list[int]:
    """A comma-separated list of numbers."""
    return [int(part) for part in text.split(",")]
