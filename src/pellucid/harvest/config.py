"""How text becomes activations: the settings that decide every value."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pellucid.core.config import config_to_dict
from pellucid.core.errors import ConfigError
from pellucid.harvest.rows import Packing

ForwardPrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestConfig:
    """How a model reads a text.

    Attributes:
        context_length: tokens of text the model reads at once, special tokens included.
        packing: "documents" gives every document rows of its own; "packed" fills rows with
            documents, and attention crosses them.
        exclude_high_norm: leave out tokens whose norm at any site is more than this multiple of the
            median norm there, over the tokens of the block. Off by default: a replacement model has
            to write those tokens too. 10 is what dictionary_learning's examples use against
            attention sinks (Sun et al. 2024: massive activations are hundreds of times the median).
        forward_precision: of the model's forward pass; the values are float32 all the same.

    Raises:
        ConfigError: a value out of range or unknown.
    """

    context_length: int
    packing: Packing = "documents"
    exclude_high_norm: float | None = None
    forward_precision: ForwardPrecision = "float32"

    def __post_init__(self) -> None:
        for name, choices in (
            ("packing", get_args(Packing)),
            ("forward_precision", get_args(ForwardPrecision)),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(
                    f"unknown {name.replace('_', ' ')} {value!r}; use one of {', '.join(choices)}"
                )
        if self.exclude_high_norm is not None and not self.exclude_high_norm > 1:
            raise ConfigError(
                f"exclude_high_norm is {self.exclude_high_norm}; give a multiple of the median "
                "norm above 1, such as 10"
            )

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""
        return config_to_dict(self)
