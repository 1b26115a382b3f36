"""Every way to damage a file of an artifact, and what opening the artifact then says."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pellucid.core.errors import PellucidError

EVERY_OFFSET_BELOW = 8_192
RANDOM_OFFSETS = 40
HEADER = 1_000
FLIPPED = "flipped"
ONE_ERROR, WARNED, SAME, WRONG, CRASH = "one error", "warning", "same", "wrong", "crash"


def damages(content: bytes, draw: random.Random, *, step: int = 1) -> Iterator[tuple[str, bytes]]:
    """What may become of a file, by what was done to it.

    One bit is flipped: of every byte of a small file (or every `step`-th), of the first and last,
    and some of the header and the rest of a large one, drawn at random. The file is also cut by a
    byte and by half, emptied, and continued.
    """
    size = len(content)
    if size <= EVERY_OFFSET_BELOW:
        offsets = set(range(0, size, step))
    else:
        offsets = {0, 7, 8, 9, size // 2, size - 1}
        offsets |= {draw.randrange(min(size, HEADER)) for _ in range(RANDOM_OFFSETS // 2)}
        offsets |= {draw.randrange(size) for _ in range(RANDOM_OFFSETS)}
    for place in sorted(offsets):
        bit = 1 << draw.randrange(8)
        yield FLIPPED, content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
    yield "cut", content[:-1]
    yield "cut", content[: size // 2]
    yield "emptied", b""
    yield "continued", content + b"\0"


def survey(
    files: list[Path], opened: Callable[[], Any], draw: random.Random, *, step: int = 1
) -> dict[str, dict[str, Counter[str]]]:
    """What `opened` says of an artifact with one damaged file, for every file and damage.

    Args:
        files: of the artifact.
        opened: opens it and returns a comparable value of what it holds.
        draw: where bits are flipped.
        step: see `damages`.

    Returns:
        By file name and kind of damage, how often: one `PellucidError` that names the file; a
        warning that names it, and an answer from elsewhere; the same as whole; something else,
        without a word; another exception.
    """
    whole = opened()
    found: dict[str, dict[str, Counter[str]]] = {}
    for path in files:
        content = path.read_bytes()
        verdicts = found.setdefault(path.name, {})
        try:
            for what, damaged in damages(content, draw, step=step):
                path.write_bytes(damaged)
                verdicts.setdefault(what, Counter())[verdict(path, opened, whole)] += 1
            path.unlink()
            verdicts["missing"] = Counter([verdict(path, opened, whole)])
        finally:
            path.write_bytes(content)
    return found


def verdict(path: Path, opened: Callable[[], Any], whole: Any) -> str:
    """What opening an artifact says whose file `path` is damaged."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pellucid")
    logger.addHandler(handler)
    try:
        answer = opened()
    except PellucidError as error:
        named = any(path.name in text for text in (str(error), *said))
        return ONE_ERROR if named else f"an error that does not name it: {error}"
    except Exception as error:
        return f"{CRASH}: {type(error).__name__}"
    finally:
        logger.removeHandler(handler)
    if any(path.name in text for text in said):
        return WARNED
    return SAME if answer == whole else WRONG
