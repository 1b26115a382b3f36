"""Configuration: keyword-only dataclasses to and from plain dictionaries, strictly."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from pellucid.core.errors import ConfigError

ConfigT = TypeVar("ConfigT")


def config_from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Build a configuration dataclass from a mapping.

    Raises:
        ConfigError: the mapping has a key that the dataclass does not know.
    """
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"unknown setting {unknown[0]!r} for {cls.__name__}; known: {', '.join(sorted(known))}"
        )
    return cls(**values)


def config_to_dict(config: Any) -> dict[str, Any]:
    """The plain, JSON-able form of a configuration dataclass."""
    values = asdict(config)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
