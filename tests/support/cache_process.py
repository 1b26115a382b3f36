"""Caches written by processes that are killed at every moment, and then completed.

`python -m support.cache_process FOLDER` forks a writer for every operation on the file system that
writing a cache makes; the writer kills itself just before that operation, or half-way through a
write. A second one completes the cache. Prints `moments N` and the moments at which the result
differs from a cache that was never interrupted.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from support.cached import cached, live

TOKENS = 1_000
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod")


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}


def in_child(work: Callable[[], object]) -> int:
    """How a forked process that does `work` ends: 0, or less a signal's number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(folder: Path, moment: int, *, half_written: bool) -> None:
    """Arrange to be killed at operation number `moment` below `folder`."""
    seen = 0

    def count() -> bool:
        nonlocal seen
        seen += 1
        return seen > moment

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and str(arguments[0]).startswith(str(folder)) and count():
            os.kill(os.getpid(), signal.SIGKILL)

    def write_half(path: Path, data: bytes) -> int:
        if count():
            with path.open("wb", buffering=0) as file:
                file.write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(path, data)

    original = Path.write_bytes
    if half_written:
        Path.write_bytes = write_half  # type: ignore[method-assign]
    else:
        sys.addaudithook(hook)


def main(base: str) -> None:
    os.fsync = lambda descriptor: None  # what a killed process wrote, the system keeps
    root = Path(base)
    source = live()

    def write(folder: Path) -> None:
        cached(folder, tokens=TOKENS, source=source)

    whole = root / "whole"
    assert in_child(lambda: write(whole)) == 0
    expected = content(whole)
    moments = 0
    for half_written in (True, False):
        for moment in range(10_000):
            folder = root / f"{half_written}-{moment}"

            def write_and_die(
                folder: Path = folder, moment: int = moment, half_written: bool = half_written
            ) -> None:
                die_at(folder, moment, half_written=half_written)
                write(folder)

            ended = in_child(write_and_die)
            if ended == 0:
                break
            assert ended == -signal.SIGKILL, (folder, ended)
            moments += 1
            assert in_child(lambda folder=folder: write(folder)) == 0, folder
            if content(folder) != expected:
                print("differs", half_written, moment)
    print("moments", moments)


if __name__ == "__main__":
    main(sys.argv[1])
