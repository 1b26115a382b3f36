"""What a benchmark measures: time, memory, and the machine it ran on.

Standard library only, so that a peer in another environment can import it too.
"""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Medians over the repeats, and the largest resident memory of all of them.

    Attributes:
        wall_s: elapsed seconds.
        cpu_s: processor seconds of this process, user and system, over all threads. On a machine
            that other jobs share, this is the steadier of the two.
        start_mb: resident memory before the first call (2**20 bytes).
        peak_mb: largest resident memory from the first call to the last.
        repeats: how many calls were timed.
    """

    wall_s: float
    cpu_s: float
    start_mb: float
    peak_mb: float
    repeats: int


def measure(function: Callable[[], Result], *, repeats: int = 1) -> tuple[Result, Measurement]:
    """Call `function` `repeats` times; return its last result and what the calls cost."""
    gc.collect()
    _reset_peak_memory()
    start_mb = _status_mb("VmRSS")
    wall, cpu = [], []
    for _ in range(repeats):
        result = None  # free the last result before the next call
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        result = function()
        wall.append(time.perf_counter() - wall_start)
        cpu.append(time.process_time() - cpu_start)
    return result, Measurement(
        wall_s=statistics.median(wall),
        cpu_s=statistics.median(cpu),
        start_mb=start_mb,
        peak_mb=_status_mb("VmHWM"),
        repeats=repeats,
    )


def hardware() -> dict[str, str | int]:
    """The machine: processor, cores, memory and operating system."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": next((v.strip() for k, v in fields.items() if k.strip() == "model name"), "unknown"),
        "cores": os.cpu_count() or 0,
        "memory_mb": pages // 2**20,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of those of `packages` that are installed here."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "source"
    return found


def _reset_peak_memory() -> None:
    """Start the kernel's high-water mark again from what is resident now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _status_mb(field: str) -> float:
    """A memory field of this process, such as VmHWM. Unlike ru_maxrss it is not inherited."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024
