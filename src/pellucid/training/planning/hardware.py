"""A machine that is stated rather than measured, such as one that is yet to be rented."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from pellucid.core.errors import ConfigError

GB = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What one process has: a GPU, or a CPU.

    Attributes:
        tflops: 10^12 floating-point operations a second, in the precision that is trained in.
        memory: GB (10^9 bytes).
        bandwidth: GB/s to and from memory.
        link: GB/s that a process exchanges with others.
        efficiency: the share of `tflops` that matrix products reach.

    Raises:
        ConfigError: a value that is not positive, or an efficiency above 1.
    """

    tflops: float
    memory: float
    bandwidth: float
    link: float = 50.0
    efficiency: float = 0.4

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"hardware: {field.name} is {value:g}; give a positive number")
        if self.efficiency > 1:
            raise ConfigError(
                f"hardware: efficiency is {self.efficiency:g}; give a share of tflops, up to 1"
            )


def parse_hardware(text: str) -> Hardware:
    """Read `tflops=67,memory=80,bandwidth=3350`.

    Raises:
        ConfigError: it cannot be read, or lacks what is needed.
    """
    example = "write it like tflops=67,memory=80,bandwidth=3350"
    known = [field.name for field in fields(Hardware)]
    values: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            raise ConfigError(f"hardware {text!r} cannot be read at {part!r}; {example}") from None
        if name not in known or name in values:
            raise ConfigError(
                f"hardware {text!r} has {name!r}; give each of {', '.join(known)} once at most"
            )
        values[name] = value
    return _complete(values, example)


def _complete(values: Mapping[str, float], example: str) -> Hardware:
    missing = [name for name in ("tflops", "memory", "bandwidth") if name not in values]
    if missing:
        raise ConfigError(f"hardware lacks {', '.join(missing)}; {example}")
    return Hardware(**values)
