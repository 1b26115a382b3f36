"""What this machine has left: memory and disk."""

import os
import shutil
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def free_memory(device: torch.device) -> int:
    """Bytes that a process may still take: of the GPU, or of main memory.

    On the CPU a limit of the container counts where there is one.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _available()
    try:
        return min(free, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no limit is written as "max"
        return free


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # no Linux: all that the machine has
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_disk(folder: Path) -> int:
    """Bytes free on the disk of a folder, which need not exist."""
    existing = next(each for each in [folder, *folder.absolute().parents] if each.exists())
    return shutil.disk_usage(existing).free
