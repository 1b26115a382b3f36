"""How a cache stores rows of activations: a name, what it costs, and both directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DataError
from pellucid.core.registry import Registry


class Storage(Protocol):
    """A way to store rows."""

    def row_bytes(self, width: int) -> int:
        """Bytes of one row."""

    def pack(self, rows: Float[Tensor, "N D"]) -> dict[str, Tensor]:
        """The tensors to store, by suffix; each has a row a row.

        Raises:
            DataError: the rows cannot be stored so.
        """

    def unpack(self, stored: Mapping[str, Tensor]) -> Float[Tensor, "N D"]:
        """The rows in float32."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Rows cast to a floating dtype."""

    dtype: torch.dtype

    def row_bytes(self, width: int) -> int:
        """See `Storage.row_bytes`."""
        return width * self.dtype.itemsize

    def pack(self, rows: Float[Tensor, "N D"]) -> dict[str, Tensor]:
        """See `Storage.pack`."""
        stored = rows.to(self.dtype)
        if self.dtype != torch.float32:
            _check_finite(stored, rows, str(self.dtype).removeprefix("torch."))
        return {"": stored}

    def unpack(self, stored: Mapping[str, Tensor]) -> Float[Tensor, "N D"]:
        """See `Storage.unpack`."""
        return stored[""].float()


@dataclass(frozen=True, slots=True)
class ScaledInt8:
    """Rows as integers from -127 to 127 times a float32 scale of their own, max |x| / 127."""

    def row_bytes(self, width: int) -> int:
        """See `Storage.row_bytes`."""
        return width + 4

    def pack(self, rows: Float[Tensor, "N D"]) -> dict[str, Tensor]:
        """See `Storage.pack`."""
        scale = rows.abs().amax(dim=1) / 127
        _check_finite(scale, rows, "int8")
        divisor = torch.where(scale > 0, scale, 1.0)
        return {"": (rows / divisor[:, None]).round_().to(torch.int8), ".scale": scale}

    def unpack(self, stored: Mapping[str, Tensor]) -> Float[Tensor, "N D"]:
        """See `Storage.unpack`."""
        return stored[""].float().mul_(stored[".scale"][:, None])


STORAGE: Registry[Storage] = Registry(
    "cache dtype",
    {
        "float32": Cast(torch.float32),
        "bfloat16": Cast(torch.bfloat16),
        "float16": Cast(torch.float16),
        "int8": ScaledInt8(),
    },
)


def _check_finite(stored: Tensor, rows: Tensor, dtype: str) -> None:
    if not stored.isfinite().all():
        raise DataError(
            f"an activation of size {float(rows.abs().max()):.3g} cannot be stored as {dtype}; "
            "store bfloat16 or float32, or check the model if it is not finite"
        )
