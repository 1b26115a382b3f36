"""A name -> implementation table whose misses are explained."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from pellucid.core.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from public names to implementations of one kind.

    Args:
        kind: what the entries are, for messages ("activation").
        entries: the implementations by name.
    """

    def __init__(self, kind: str, entries: dict[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise ConfigError(
                f"unknown {self.kind} {name!r}; use one of {', '.join(self._entries)}"
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries
