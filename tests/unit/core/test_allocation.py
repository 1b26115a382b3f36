import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys
from pathlib import Path
from pellucid.core.allocation import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024

before = resident()
blocks = [libc.malloc(24 * 2**20) for _ in range(8)]
for block in blocks:
    ctypes.memset(block, 1, 24 * 2**20)
for block in blocks:
    libc.free(block)
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of glibc")
def test_freed_blocks_stay_with_the_process() -> None:
    def megabytes(how: str) -> int:
        command = [sys.executable, "-c", SCRIPT, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert megabytes("leave") < 50
    assert megabytes("keep") > 150
