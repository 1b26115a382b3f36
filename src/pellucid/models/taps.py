"""Reading and editing values inside a running module: the only place that registers hooks.

Hooks live on the module they tap, but act only on forwards of the thread that registered them:
other threads may run the same module meanwhile, tapped otherwise or not at all.
"""

import difflib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pellucid.core.errors import SiteError
from pellucid.core.types import Side


@dataclass(frozen=True, slots=True)
class TapPoint:
    """The first tensor that goes into a module, or the first that comes out of it.

    Attributes:
        path: of the module inside the root module, such as `model.layers.3.mlp`.
        side: `input` or `output`.
        in_place: an edit overwrites the tensor itself, so that whoever else holds it (the
            residual branch around a norm) sees the edit too. Otherwise only this module does.
    """

    path: str
    side: Side
    in_place: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.side}"


class TapCall(NamedTuple):
    """The call that is being tapped.

    Attributes:
        input: the first tensor given to the module (after any edit).
        outputs: everything the module returned, `()` at an input tap. An attention module run
            eagerly returns its pattern `[B, H, S, S]` second.
    """

    input: Tensor
    outputs: tuple[Any, ...]


TapFunction = Callable[[Tensor, TapCall], Tensor | None]
"""Takes the tapped value and its call; returns a tensor of that shape to put there (it is cast to
the value's dtype), or None to leave the value."""


@contextmanager
def tapped(module: nn.Module, taps: Sequence[tuple[TapPoint, TapFunction]]) -> Iterator[None]:
    """Call each function whenever its point is reached, as long as the context lasts.

    Several taps on one point run in the given order, each seeing what the one before left there;
    among the inputs of a module the in-place points come first, because they stand for a value
    computed earlier. Taps of an outer context run before those of an inner one.

    Raises:
        SiteError: no module has that path, it is never given (or never returns) a tensor, or an
            edit changes the shape.
    """
    handles: list[RemovableHandle] = []
    try:
        for point, function in sorted(taps, key=lambda tap: not tap[0].in_place):
            handles.append(_register(module, point, function))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watched(
    module: nn.Module,
    before: Callable[[Mapping[str, Any]], None],
    after: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Call a function ahead of every forward of a module, as long as the context lasts.

    Args:
        module: the module.
        before: takes the forward's arguments by name; an exception of its stops the forward.
        after: called when a forward has run to its end; not when it was left early.
    """
    signature, owner = inspect.signature(module.forward), threading.get_ident()

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == owner:
            before(signature.bind_partial(*args).arguments | kwargs if args else kwargs)

    def finished(*_: object) -> None:
        if threading.get_ident() == owner:
            after()

    handles = [
        module.register_forward_pre_hook(hook, with_kwargs=True),
        module.register_forward_hook(finished),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def capture(
    module: nn.Module, points: Sequence[TapPoint], forward: Callable[[], object]
) -> dict[TapPoint, Tensor]:
    """The value at each point in one forward, abandoned as soon as the last is reached.

    A module that is called several times in the forward counts with its first call.

    Args:
        module: the root module.
        points: where to read.
        forward: runs the module.

    Raises:
        SiteError: a point was not reached.
    """
    missing = set(points)
    values: dict[TapPoint, Tensor] = {}

    def tap(point: TapPoint) -> tuple[TapPoint, TapFunction]:
        def keep(value: Tensor, _: TapCall) -> None:
            values.setdefault(point, value)
            missing.discard(point)
            if not missing:
                raise _AllCapturedError

        return point, keep

    with tapped(module, [tap(point) for point in missing]), suppress(_AllCapturedError):
        forward()
    if missing:
        names = ", ".join(sorted(str(point) for point in missing))
        raise SiteError(f"the forward pass never reached {names}; choose a module that it runs")
    return values


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """The arguments that a module was called with, as given."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@contextmanager
def called(
    module: nn.Module, paths: Sequence[str], given: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[dict[str, ModuleCall]]:
    """Note with what the modules at `paths` are called, the last call of each, by path.

    Edits of the inputs by taps of an outer context are included.

    Args:
        module: the root module.
        paths: of the modules to watch.
        given: by path, arguments by name that the module is called with instead.

    Raises:
        SiteError: no module has that path.
    """
    calls: dict[str, ModuleCall] = {}
    handles: list[RemovableHandle] = []

    def watch(path: str, target: nn.Module) -> Callable[..., Any]:
        changes = (given or {}).get(path, {})
        signature = inspect.signature(target.forward)

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.arguments.update(changes)
            calls[path] = ModuleCall(bound.args, bound.kwargs)
            return bound.args, bound.kwargs

        return hook

    try:
        for path in paths:
            target = submodule(module, path)
            hook = _confined(watch(path, target))
            handles.append(target.register_forward_pre_hook(hook, with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class _AllCapturedError(Exception):
    """Unwinds a forward pass that has nothing left to compute for us."""


def submodule(module: nn.Module, path: str) -> nn.Module:
    """The module at `path`.

    Raises:
        SiteError: there is none; the message names the closest path.
    """
    try:
        return module.get_submodule(path)
    except AttributeError:
        names = [name for name, _ in module.named_modules() if name]
        close = difflib.get_close_matches(path, names, n=1, cutoff=0.0)
        hint = f"; the closest is {close[0]!r}" if close else ""
        raise SiteError(f"{type(module).__name__} has no module at {path!r}{hint}") from None


def _register(root: nn.Module, point: TapPoint, function: TapFunction) -> RemovableHandle:
    module = submodule(root, point.path)
    if point.side == "input":
        hook = _confined(_input_hook(point, function))
        return module.register_forward_pre_hook(hook, with_kwargs=True)
    hook = _confined(_output_hook(point, function))
    return module.register_forward_hook(hook, with_kwargs=True)


def _confined(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, acting only in the thread that makes it."""
    owner = threading.get_ident()
    return lambda *call: hook(*call) if threading.get_ident() == owner else None


def _input_hook(point: TapPoint, function: TapFunction) -> Callable[..., Any]:
    def hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        key, value = _first_input(point, args, kwargs)
        # An in-place edit must not reach back into what an earlier tap has kept.
        seen = value.clone() if point.in_place else value
        new = function(seen, TapCall(seen, ()))
        if new is None:
            return None
        new = _fitting(point, value, new)
        if point.in_place:
            value.copy_(new)
            return None
        if isinstance(key, str):
            return args, kwargs | {key: new}
        return (*args[:key], new, *args[key + 1 :]), kwargs

    return hook


def _output_hook(point: TapPoint, function: TapFunction) -> Callable[..., Any]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        outputs = output if isinstance(output, tuple) else (output,)
        index = next((i for i, each in enumerate(outputs) if isinstance(each, Tensor)), None)
        if index is None:
            raise SiteError(
                f"{point} gives {type(output).__name__}, not a tensor; choose a module that "
                "returns a tensor"
            )
        call = TapCall(_first_input(point, args, kwargs)[1], outputs)
        new = function(outputs[index], call)
        if new is None:
            return None
        new = _fitting(point, outputs[index], new)
        if not isinstance(output, tuple):
            return new
        return (*outputs[:index], new, *outputs[index + 1 :])

    return hook


def _first_input(
    point: TapPoint, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[int | str, Tensor]:
    """Where a module's first tensor argument is (position or keyword), and the tensor."""
    for index, value in enumerate(args):
        if isinstance(value, Tensor):
            return index, value
    for name in ("hidden_states", *kwargs):
        if isinstance(kwargs.get(name), Tensor):
            return name, kwargs[name]
    raise SiteError(f"the module at {point} was called without a tensor; choose another module")


def _fitting(point: TapPoint, old: Tensor, new: Tensor) -> Tensor:
    """An edit in the dtype of the value whose place it takes."""
    if new.shape != old.shape:
        raise SiteError(
            f"the edit at {point} returned shape {tuple(new.shape)} for a value of shape "
            f"{tuple(old.shape)}; return the same shape"
        )
    return new.to(old.dtype)
