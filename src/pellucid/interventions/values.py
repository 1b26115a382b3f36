"""Reading the numbers that interventions are made of, whoever wrote them: one error each."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import Place, parse_place


def finite(name: str, value: Any) -> float:
    """A finite number.

    Args:
        name: what it is, for the message.
        value: as given.

    Raises:
        InterventionError: it is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InterventionError(f"{name} is {value!r}; give a number") from None
    if number - number != 0:
        raise InterventionError(f"{name} is {number}; give a finite number")
    return number


def whole(name: str, value: Any) -> int:
    """A whole number.

    Args:
        name: what it is, for the message.
        value: as given.

    Raises:
        InterventionError: it is none.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InterventionError(f"{name} holds {value!r}; give whole numbers")
    return int(value.__index__())


def wholes(name: str, values: Any) -> tuple[int, ...]:
    """Several whole numbers.

    Args:
        name: what they are, for the message.
        values: as given.

    Raises:
        InterventionError: not a list of them.
    """
    return tuple(whole(name, value) for value in listed(name, values))


def listed(name: str, values: Any) -> list[Any]:
    """The members of a list or tuple.

    Args:
        name: what it is, for the message.
        values: as given.

    Raises:
        InterventionError: it is neither.
    """
    if isinstance(values, (str, dict)) or not isinstance(values, Iterable):
        raise InterventionError(f"{name} is {values!r}; give a list")
    return list(values)


def vector(name: str, value: Any, dimensions: tuple[int, ...] = (1,)) -> Float[Tensor, "*shape"]:
    """A vector of finite floating-point numbers; a list becomes float32.

    Args:
        name: what it is, for the message.
        value: as given.
        dimensions: how many it may have.

    Raises:
        InterventionError: it is no such tensor, of other dimensions, or empty.
    """
    try:
        tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise InterventionError(f"{name} is not a vector of numbers ({error})") from None
    if not tensor.is_floating_point() or not tensor.isfinite().all():
        raise InterventionError(f"{name} holds values that are not finite numbers; check it")
    if tensor.ndim not in dimensions or not tensor.numel():
        raise InterventionError(
            f"{name} has shape {tuple(tensor.shape)}; give one number for each of the place's "
            "dimensions"
        )
    return tensor


def place(value: Any) -> Place:
    """A place, or the place that a name stands for.

    Args:
        value: as given.

    Raises:
        SiteError: the name cannot be read.
        InterventionError: it is neither.
    """
    if isinstance(value, str):
        return parse_place(value)
    if not isinstance(value, Place):
        raise InterventionError(f"a site is {value!r}; write its name, as in 'resid_post@5'")
    return value
