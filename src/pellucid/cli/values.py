"""How the command line reads counts, numbers, layer ranges and lists of token ids."""

import math
import re

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kmb]?)", re.IGNORECASE)
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_count(text: str | int) -> int:
    """Read a positive count such as `65536`, `500k`, `1.5M` or `2B`.

    Raises:
        ValueError: the text is not a count, not positive, or not whole.
    """
    match = _COUNT.fullmatch(str(text).strip().replace("_", "").replace(",", ""))
    if match is None:
        raise ValueError(f"{text!r} is not a count; write it like 65536, 500k or 2M")
    number = float(match[1]) * _UNITS[match[2].lower()]
    if number < 1 or number != int(number):
        raise ValueError(f"{text!r} is {number:g}; write a whole number of at least 1")
    return int(number)


def parse_counts(text: str) -> tuple[int, ...]:
    """Read counts such as `256,1024` or `1k,8k`.

    Raises:
        ValueError: a part is not a count.
    """
    return tuple(parse_count(part) for part in text.split(","))


def parse_seed(text: str | int) -> int:
    """Read a whole number of at least 0.

    Raises:
        ValueError: the text is none.
    """
    if not str(text).strip().isdecimal():
        raise ValueError(f"{text!r} is not a seed; write a whole number of at least 0")
    return int(text)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read seeds such as `0,1,2`.

    Raises:
        ValueError: a part is not a whole number of at least 0.
    """
    return tuple(parse_seed(part) for part in text.split(","))


def parse_numbers(text: str) -> tuple[float, ...]:
    """Read positive numbers such as `0.01,0.05` or `1e-3`.

    Raises:
        ValueError: a part is not a positive number.
    """
    return tuple(_positive(part) for part in text.split(","))


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{text!r} is not a positive number; write it like 0.05 or 1e-3")
    return number


def parse_layers(text: str) -> list[int]:
    """Read layer numbers such as `3`, `0-3` or `0,2,5-7`, sorted and without repeats.

    Raises:
        ValueError: the text is not such a list, or a range runs backwards.
    """
    layers: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a list of layers; write it like 0-3 or 0,2,5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {part.strip()!r} runs backwards; write {last}-{first}")
        layers.update(range(first, last + 1))
    return sorted(layers)


def parse_ids(text: str) -> list[int]:
    """Read token ids such as `1,25,3`.

    Raises:
        ValueError: a part is not a whole number of at least 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{text!r} is not a list of token ids; write it like 1,25,3")
    return [int(part) for part in parts]
