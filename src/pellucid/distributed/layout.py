"""How the processes of a training are arranged."""

import re
from dataclasses import asdict, dataclass

from pellucid.core.errors import ConfigError

_PART = re.compile(r"(data|layers|features)=(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many ways each part of the work is split; their product is the number of processes.

    Attributes:
        data: each process trains on other text (data parallel).
        layers: each has the dictionaries of other layers.
        features: each has other features of every dictionary (tensor parallel over latents).
    """

    data: int = 1
    layers: int = 1
    features: int = 1

    @property
    def processes(self) -> int:
        """How many processes it takes."""
        return self.data * self.layers * self.features

    def __str__(self) -> str:
        return ",".join(f"{name}={count}" for name, count in asdict(self).items())


def parse_layout(text: str, world: int) -> Layout:
    """Read `data=2,features=4`; what is left of the processes goes to data.

    Args:
        text: parts that are not named are 1, but for data.
        world: how many processes there are.

    Raises:
        ConfigError: it cannot be read, or does not fit the number of processes.
    """
    counts: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _PART.fullmatch(part)
        if match is None or match[1] in counts or int(match[2]) < 1:
            raise ConfigError(
                f"layout {text!r} cannot be read at {part!r}; write it like data=2,features=4"
            )
        counts[match[1]] = int(match[2])
    others = counts.get("layers", 1) * counts.get("features", 1)
    counts.setdefault("data", max(1, world // others))
    layout = Layout(**counts)
    if layout.processes != world:
        raise ConfigError(
            f"the layout {layout} takes {layout.processes} processes but there are {world}; start "
            f"torchrun with {layout.processes}, or give another layout"
        )
    return layout
