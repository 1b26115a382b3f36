"""One run of a prompt, recorded so that edited copies of it can go on from any block and token.

An edit at layer l and position p changes nothing in the blocks before l, and nothing at the
positions before p (attention is causal). So an edited copy is computed from block l on, for the
tokens from p on only, with the recorded keys and values of the tokens before. Each block is the
model's own module, called with the arguments that it had in the recorded run.

Shape legend: R rows, S positions of the prompt, T of them that are computed, d model width, V
vocabulary.
"""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.types import AnySite, Site
from pellucid.models.cache_name import CACHE_NAMES, cache_name
from pellucid.models.model import LanguageModel
from pellucid.models.taps import ModuleCall, TapCall, TapFunction, TapPoint, called, submodule

_CLOSE = {torch.float16: 1e-2, torch.bfloat16: 4e-2}
_CLOSE_OTHERWISE = 1e-4
KeysValues = tuple[Float[Tensor, "1 K S h"], Float[Tensor, "1 K S h"]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedRun:
    """A run of one prompt that edited copies go on from.

    Attributes:
        model: that ran.
        ids: the prompt.
        residuals: what every block was given and, last, what the last block gave.
        arguments: what else every block was called with, by name.
        keys_values: of every block's attention.
        kept: values at the places that were asked for.
        logits: at the last position, after any softcap.
    """

    model: LanguageModel
    ids: Int[Tensor, " S"]
    residuals: list[Float[Tensor, "S d"]]
    arguments: list[dict[str, Any]]
    keys_values: list[KeysValues]
    kept: dict[TapPoint, Float[Tensor, "S _"]]
    logits: Float[Tensor, " V"]

    @property
    def resumes(self) -> bool:
        """Whether copies can go on from the middle at all: every block filled a cache."""
        return len(self.keys_values) == self.model.n_layers

    def is_own(self, logits: Float[Tensor, " V"]) -> bool:
        """Whether logits are the run's own, up to rounding."""
        tolerance = _CLOSE.get(self.logits.dtype, _CLOSE_OTHERWISE)
        error = (logits - self.logits).abs().max() / self.logits.abs().max().clamp(min=1e-9)
        return bool(error <= tolerance)

    def block(
        self, layer: int, hidden: Float[Tensor, "R T d"], *, start: int
    ) -> Float[Tensor, "R T d"]:
        """What a block makes of other residuals at the positions from `start` on.

        Before `start` the block's keys and values are those of the recorded run. Taps on the
        block's modules see `hidden`'s rows and positions only.

        Args:
            layer: of the block.
            hidden: the residuals that it is given.
            start: position of the first of them.
        """
        keys, values = self.keys_values[layer]
        prefix = _Prefix(keys[:, :, :start], values[:, :, :start])
        return _call(self.model, layer, hidden, _from(self.arguments[layer], start), prefix)

    def last_token(self, hidden: Float[Tensor, "R T d"], *, start: int) -> Float[Tensor, "R 1 d"]:
        """What the last block makes of the last position.

        Of the other positions from `start` on it needs keys and values only.

        Args:
            hidden: the residuals that the block is given.
            start: position of the first of them.
        """
        layer, last = self.model.n_layers - 1, len(self.ids) - 1
        own = _Captor()
        with suppress(_CapturedError):
            _call(self.model, layer, hidden, _from(self.arguments[layer], start), own)
        assert own.found is not None
        prefix = tuple(
            torch.cat([old[:, :, :start].expand(len(new), -1, -1, -1), new[:, :, :-1]], dim=-2)
            for old, new in zip(self.keys_values[layer], own.found, strict=True)
        )
        return _call(
            self.model, layer, hidden[:, -1:], _from(self.arguments[layer], last), _Prefix(*prefix)
        )

    def head(self, hidden: Float[Tensor, "R d"]) -> Float[Tensor, "R V"]:
        """The logits that the final residuals give: norm, unembedding and any softcap."""
        return read_out(self.model, hidden)


def read_out(model: LanguageModel, hidden: Float[Tensor, "*R d"]) -> Float[Tensor, "*R V"]:
    """The logits that final residuals give: norm, unembedding and any softcap.

    Raises:
        SiteError: the model's family is not known.
    """
    model.unembedding_point()
    assert model.spec is not None
    normed = submodule(model.module, model.spec.final_norm)(hidden)
    logits = submodule(model.module, model.spec.unembedding)(normed)
    cap = model.logit_softcap
    return logits if cap is None else cap * torch.tanh(logits / cap)


@torch.no_grad()
def record(
    model: LanguageModel,
    ids: Int[Tensor, "B S"],
    *,
    keep: Sequence[TapPoint] = (),
    edits: Sequence[tuple[AnySite, TapFunction]] = (),
) -> list[RecordedRun]:
    """Run prompts of one length in one batch and keep what edited copies of each need.

    Args:
        model: to run.
        ids: the prompts, without padding.
        keep: where to read values besides.
        edits: taps of the run itself, at its embeddings.

    Raises:
        SiteError: the model's family is not known.
    """
    paths = [_path(model, layer) for layer in range(model.n_layers)]
    kept: dict[TapPoint, Tensor] = {}
    final = TapPoint(paths[-1], "output")
    readers = [(point, _keep(kept, point)) for point in dict.fromkeys([*keep, final])]
    recorders = {path: _Recorder() for path in paths}
    given = {
        path: {cache_name(submodule(model.module, path)): each} for path, each in recorders.items()
    }
    with (
        model.tapped(edits),
        called(model.module, paths, given) as calls,
        model.tapped(readers),
    ):
        logits = model.logits(ids)[:, -1]
    arguments = [_named(model, path, calls[path]) for path in paths]
    residuals = [each.pop("") for each in arguments] + [kept[final]]
    shared = [_one_row(each) for each in arguments]
    found = [each.found for each in recorders.values()]
    return [
        RecordedRun(
            model=model,
            ids=ids[row],
            residuals=[each[row] for each in residuals],
            arguments=shared,
            keys_values=[
                (kv[0][row : row + 1], kv[1][row : row + 1]) for kv in found if kv is not None
            ],
            kept={point: value[row] for point, value in kept.items()},
            logits=logits[row],
        )
        for row in range(len(ids))
    ]


def _one_row(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of one row of a batch without padding, where all rows have the same."""
    return {
        name: tuple(each[:1] for each in value)
        if name == "position_embeddings"
        else value[:1]
        if isinstance(value, Tensor) and value.ndim > 1
        else value
        for name, value in arguments.items()
    }


def _path(model: LanguageModel, layer: int) -> str:
    return model.point(Site("resid_pre", layer)).path


def _keep(kept: dict[TapPoint, Tensor], point: TapPoint) -> TapFunction:
    def keep(value: Tensor, _: TapCall) -> None:
        kept[point] = value

    return keep


def _named(model: LanguageModel, path: str, call: ModuleCall) -> dict[str, Any]:
    """A block's arguments by name, its residual under the name "" and the cache left out."""
    signature = inspect.signature(submodule(model.module, path).forward)
    bound = signature.bind(*call.args, **call.kwargs).arguments
    extra = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    named = {**bound, **bound.pop(extra, {})} if extra else dict(bound)
    named.pop(extra or "", None)
    first = next(iter(signature.parameters))
    named[""] = named.pop(first)
    return {name: value for name, value in named.items() if name not in CACHE_NAMES}


def _from(arguments: Mapping[str, Any], start: int) -> dict[str, Any]:
    """The arguments for the positions from `start` on."""
    cut = dict(arguments)
    for name, value in arguments.items():
        if name == "attention_mask" and isinstance(value, Tensor):
            cut[name] = value[..., start:, :]
        elif name in ("position_ids", "cache_position") and isinstance(value, Tensor):
            cut[name] = value[..., start:]
        elif name == "position_embeddings" and isinstance(value, tuple):
            cut[name] = tuple(each[..., start:, :] for each in value)
    return cut


def _call(
    model: LanguageModel, layer: int, hidden: Tensor, arguments: dict[str, Any], cache: Any
) -> Tensor:
    module = submodule(model.module, _path(model, layer))
    output = module(hidden, **arguments, **{cache_name(module): cache})
    return output[0] if isinstance(output, tuple) else output


class _Prefix:
    """A cache of keys and values in front of those of the tokens that are computed."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys, self._values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """All keys and values."""
        rows = len(keys)
        return (
            torch.cat([self._keys.expand(rows, -1, -1, -1), keys], dim=-2),
            torch.cat([self._values.expand(rows, -1, -1, -1), values], dim=-2),
        )


class _Recorder:
    """A cache that notes keys and values and gives them back."""

    found: KeysValues | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The same keys and values."""
        self.found = keys, values
        return keys, values


class _CapturedError(Exception):
    """Unwinds a block whose keys and values are known."""


class _Captor:
    """A cache that notes keys and values and lets the block go no further."""

    found: KeysValues | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Raises, always."""
        self.found = keys, values
        raise _CapturedError
