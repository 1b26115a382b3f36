"""What an intervention does to the values it selects: data only, no computation.

add         x + strength * vector             (on a feature: activation + strength)
set         value
scale       factor * x
project_out x less its projection on the span of the directions (directional ablation)
clamp       on a feature: activation = value, everything else (error included) preserved
patch_from  the value the same place has in another run
custom      any function of the selected values
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.registry import Registry
from pellucid.interventions.values import finite, vector, wholes


@final
@dataclass(frozen=True, slots=True, eq=False)
class Add:
    """Add `strength` times a vector; on a feature, `strength` to its activation.

    Attributes:
        vector: of the place's width, not normalised; None on a feature.
        strength: factor, or on a feature the amount.
    """

    name: ClassVar[str] = "add"
    vector: Float[Tensor, " d"] | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", finite("the strength of add", self.strength))
        if self.vector is not None:
            object.__setattr__(self, "vector", vector("the vector of add", self.vector))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Set:
    """Put a vector (or one number everywhere) in the place of the value."""

    name: ClassVar[str] = "set"
    value: Float[Tensor, " d"] | float

    def __post_init__(self) -> None:
        what, value = "the value of set", self.value
        checked = vector(what, value) if isinstance(value, (Tensor, list)) else finite(what, value)
        object.__setattr__(self, "value", checked)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Multiply by a factor; on a feature, its activation."""

    name: ClassVar[str] = "scale"
    factor: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", finite("the factor of scale", self.factor))


@final
@dataclass(frozen=True, slots=True, eq=False)
class ProjectOut:
    """Remove the span of some directions: h - Q Q^T h with an orthonormal basis Q of it.

    Attributes:
        directions: one row each, of any length but zero.
    """

    name: ClassVar[str] = "project_out"
    directions: Float[Tensor, "k d"]

    def __post_init__(self) -> None:
        directions = vector("the directions of project_out", self.directions, (1, 2))
        directions = directions[None] if directions.ndim == 1 else directions
        if not bool((directions.norm(dim=1) > 0).all()):
            raise InterventionError(
                f"the directions of project_out have shape {tuple(directions.shape)} or zero "
                "length; give non-zero rows"
            )
        object.__setattr__(self, "directions", directions)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Clamp:
    """Give a feature's activation a value: out + (value - f(x)) d, the error left as it is."""

    name: ClassVar[str] = "clamp"
    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", finite("the value of clamp", self.value))


@final
@dataclass(frozen=True, slots=True, eq=False)
class PatchFrom:
    """The value that the place has in an unedited run of another prompt.

    Attributes:
        ids: that prompt, its special first token included.
        positions: the position of the other prompt for each selected position in order; None
            for the same absolute positions.
    """

    name: ClassVar[str] = "patch_from"
    ids: tuple[int, ...]
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        ids = wholes("the ids of patch_from", self.ids)
        if not ids:
            raise InterventionError("the ids of patch_from are empty; give the other prompt's")
        object.__setattr__(self, "ids", ids)
        if self.positions is not None:
            positions = wholes("the positions of patch_from", self.positions)
            object.__setattr__(self, "positions", positions)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Custom:
    """Any function of the selected values.

    Attributes:
        label: names it in receipts and hashes; it cannot be written as JSON.
        function: from values [n, d] to new values [n, d]; n differs from call to call.
    """

    name: ClassVar[str] = "custom"
    label: str
    function: Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]] = field(repr=False)


Operation = Add | Set | Scale | ProjectOut | Clamp | PatchFrom | Custom

OPERATIONS: Registry[type[Operation]] = Registry(
    "operation", {cls.name: cls for cls in (Add, Set, Scale, ProjectOut, Clamp, PatchFrom, Custom)}
)
