"""Path patching: a change that travels from a sender straight to receivers and nowhere else.

The sender takes its value from the source run. Every other head and MLP is held at the base run, so
the change reaches a receiver by the residual stream alone. What the receivers then give is put into
the base run, and everything after them answers (Wang et al. 2023; Goldowsky-Dill et al. 2023).

Senders are the embedding, heads (`z`), attention outputs and MLPs; receivers are heads (`z`: by
queries, keys and values; `q`, `k`, `v` alone), MLPs, and the logits.

Shape legend: E edges, S positions, d width.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.places import HeadSite, parse_place
from pellucid.core.types import Site
from pellucid.interventions.tracing.contrast import Contrast, Direction
from pellucid.interventions.tracing.patches import Patched, Put, patched_logits
from pellucid.interventions.tracing.result import SweepResult
from pellucid.interventions.tracing.slots import slot
from pellucid.models.model import LanguageModel
from pellucid.models.resume import RecordedRun, record
from pellucid.models.taps import TapCall, TapFunction, TapPoint, submodule

LOGITS: Literal["logits"] = "logits"
Sender = Site | HeadSite
Receiver = Site | HeadSite | Literal["logits"]


@final
@dataclass(frozen=True, slots=True)
class Path:
    """One path to patch.

    Attributes:
        sender: whose change travels.
        receivers: that see it; the logits only alone.
        positions: tokens at which the sender changes; None for all.
    """

    sender: Sender
    receivers: tuple[Receiver, ...]
    positions: tuple[int, ...] | None = None


def path_patching(
    model: LanguageModel,
    pair: Contrast,
    senders: Sequence[str],
    receivers: Sequence[str],
    *,
    direction: Direction = "noise",
    by_position: bool = False,
    seed: int = 0,
) -> SweepResult:
    """Patch the path from each sender to all receivers, one sender at a time.

    The control adds, for the sender's change, a random one of the same size at each token.

    Args:
        model: to patch.
        pair: the two prompts.
        senders: `embed`, `z@1[3]`, `attn_out@1`, `mlp_out@2`.
        receivers: `z@2[1]`, `q@2[1]`, `k@2[1]`, `v@2[1]`, `mlp_in@3`, or `logits` alone.
        direction: `noise` sends corrupt values into the clean run, `denoise` the reverse.
        by_position: one path a token of the sender, instead of all tokens at once.
        seed: of the control.

    Raises:
        InterventionError: a place cannot send or receive, or a receiver comes before a sender.
        SiteError: the model has no such place.
        ConfigError: another direction.
    """
    sending = [_sender(parse_place(name)) for name in senders]
    receiving = tuple(_receiver(name) for name in receivers)
    columns = list(range(len(pair.clean))) if by_position else [-1]
    runs = path_runs(model, pair, direction, sending)
    paths = [
        Path(sender, receiving, (position,) if by_position else None)
        for sender in sending
        for position in columns
    ]
    changes = sender_changes(runs, paths)
    random = _random_like(changes, seed)
    shape = len(sending), len(columns)
    maps = []
    for each in (changes, random):
        found = path_logits(runs, paths, each)
        maps.append(pair.effects(found.logits, direction).double().cpu().numpy().reshape(shape))
    texts = pair.corrupt_tokens, pair.clean_tokens
    own, donor = texts if direction == "denoise" else texts[::-1]
    size = changes.norm(dim=-1).amax(1) / runs.base.residuals[0].norm(dim=-1).mean()
    return SweepResult(
        title=f"paths to {', '.join(receivers)}: {direction}, {pair.metric_name}",
        places=list(senders),
        positions=columns,
        tokens=own if by_position else ["all tokens"],
        donor_tokens=donor if by_position else ["all tokens"],
        effect=maps[0],
        noise=maps[1],
        same=None,
        relative_change=size.double().cpu().numpy().reshape(shape),
        settings={
            "method": "paths",
            "receivers": list(receivers),
            "direction": direction,
            "metric": pair.metric_name,
            "clean_value": pair.clean_value,
            "corrupt_value": pair.corrupt_value,
            "seed": seed,
        },
        note=found.note,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PathRuns:
    """The two runs that paths are patched between."""

    base: RecordedRun
    source: RecordedRun


def path_runs(
    model: LanguageModel, pair: Contrast, direction: Direction, senders: Sequence[Sender]
) -> PathRuns:
    """Record the base and the source with all that the senders need.

    Args:
        model: to run.
        pair: the two prompts.
        direction: which of them is the base.
        senders: that will be patched.

    Raises:
        SiteError: the model has no such place.
    """
    points = []
    for sender in senders:
        points.append(slot(model, sender).point)
        if isinstance(sender, HeadSite):
            points.append(model.attention_pattern_point(sender.layer))
    for layer in range(model.n_layers):
        if not _parallel(model):
            points.append(model.point(Site("resid_mid", layer)))
    base, source = record(model, torch.stack(list(pair.ends(direction))), keep=points)
    return PathRuns(base=base, source=source)


@torch.no_grad()
def sender_changes(runs: PathRuns, paths: Sequence[Path]) -> Float[Tensor, "E S d"]:
    """What each path's sender adds to the residual stream when it takes the source's value."""
    found = []
    for path in paths:
        change = _change(runs, path.sender)
        if path.positions is not None:
            kept = torch.zeros(len(change), 1, dtype=change.dtype, device=change.device)
            kept[list(path.positions)] = 1
            change = change * kept
        found.append(change)
    return torch.stack(found)


@torch.no_grad()
def path_logits(runs: PathRuns, paths: Sequence[Path], changes: Float[Tensor, "E S d"]) -> Patched:
    """The logits of the base run after each path is patched with its sender's change.

    Args:
        runs: the two runs.
        paths: to patch, a copy each.
        changes: of `sender_changes`.

    Raises:
        InterventionError: a receiver comes before its sender, or the logits are not alone.
    """
    base = runs.base
    final = base.residuals[-1][-1] + changes[:, -1]
    direct = torch.tensor([LOGITS in path.receivers for path in paths])
    _check(base.model, paths)
    values = _received(base, paths, changes)
    copies: list[list[Put]] = [[] for _ in paths]
    for (number, receiver), new in values.items():
        own = slot(base.model, receiver)
        copies[number] += [Put(own, position, value) for position, value in enumerate(new)]
    patched = patched_logits(base, copies)
    logits = torch.where(direct.to(final.device)[:, None], base.head(final), patched.logits)
    return Patched(logits, patched.note)


def _received(
    base: RecordedRun, paths: Sequence[Path], changes: Float[Tensor, "E S d"]
) -> dict[tuple[int, Sender], Float[Tensor, "S w"]]:
    """What every receiver gives when it sees its sender's change, by path and receiver."""
    groups: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for number, path in enumerate(paths):
        for receiver in path.receivers:
            if receiver != LOGITS:
                is_mlp = not isinstance(receiver, HeadSite)
                if number not in groups[receiver.layer, is_mlp]:
                    groups[receiver.layer, is_mlp].append(number)
    found: dict[tuple[int, Sender], Tensor] = {}
    for (layer, is_mlp), numbers in groups.items():
        wanted = [
            (row, number, receiver)
            for row, number in enumerate(numbers)
            for receiver in paths[number].receivers
            if receiver != LOGITS
            and receiver.layer == layer
            and is_mlp != isinstance(receiver, HeadSite)
        ]
        points = {slot(base.model, _output(receiver)).point for _, _, receiver in wanted}
        values = _block_values(base, layer, changes[numbers], points, is_mlp=is_mlp)
        for row, number, receiver in wanted:
            own = slot(base.model, _output(receiver))
            found[number, _output(receiver)] = own.read(values[own.point])[row]
    return found


def _block_values(
    base: RecordedRun,
    layer: int,
    changes: Float[Tensor, "E S d"],
    points: set[TapPoint],
    *,
    is_mlp: bool,
) -> dict[TapPoint, Float[Tensor, "E S w"]]:
    """Values inside a block whose attention, or whose MLP alone, reads changed residuals."""
    hidden = base.residuals[layer].expand(len(changes), -1, -1)
    taps: list[tuple[TapPoint, TapFunction]] = []
    if is_mlp and not _parallel(base.model):
        middle = base.model.point(Site("resid_mid", layer))
        own = base.kept[middle] + changes
        taps.append((middle, lambda value, _: own))
    else:
        hidden = hidden + changes
    kept: dict[TapPoint, Tensor] = {}

    def keep(point: TapPoint) -> TapFunction:
        def read(value: Tensor, _: TapCall) -> None:
            kept[point] = value

        return read

    with base.model.tapped([*taps, *((point, keep(point)) for point in points)]):
        base.block(layer, hidden, start=0)
    return kept


def _change(runs: PathRuns, sender: Sender) -> Float[Tensor, "S d"]:
    own = slot(runs.base.model, sender)
    if not isinstance(sender, HeadSite):
        return runs.source.kept[own.point] - runs.base.kept[own.point]
    attention = runs.base.model.block(sender.layer).attention
    assert sender.head is not None
    rows = slice(sender.head * attention.d_head, (sender.head + 1) * attention.d_head)
    z = own.read(runs.source.kept[own.point]) - own.read(runs.base.kept[own.point])
    change = z @ attention.w_o[rows]
    spec = runs.base.model.spec
    assert spec is not None
    if spec.attn_post_norm is None:
        return change
    raw = runs.base.kept[runs.base.model.attention_pattern_point(sender.layer)]
    norm = submodule(runs.base.model.module, spec.block_path(sender.layer, spec.attn_post_norm))
    changed: Tensor = norm(raw + change) - norm(raw)
    return changed


def _output(receiver: Sender) -> Sender:
    """Where what a receiver gives is put back: an MLP is read at its input."""
    if isinstance(receiver, Site) and receiver.kind == "mlp_in":
        return Site("mlp_out", receiver.layer)
    return receiver


def depth_of(place: Receiver) -> tuple[int, int]:
    """Order of computation: attention before the MLP of its layer, the logits last."""
    if place == LOGITS:
        return (10**6, 0)
    if isinstance(place, HeadSite) or place.kind == "attn_out":
        return (place.layer, 0)
    return (place.layer, 1)


def follows(model: LanguageModel, sender: Sender, receiver: Receiver) -> bool:
    """Whether there is a path from the sender straight to the receiver."""
    sent, got = depth_of(sender), depth_of(receiver)
    return got > sent and not (_parallel(model) and got[0] == sent[0])


def _check(model: LanguageModel, paths: Sequence[Path]) -> None:
    for path in paths:
        if LOGITS in path.receivers and len(path.receivers) > 1:
            raise InterventionError(
                f"receivers are {[str(each) for each in path.receivers]}; give the logits alone, "
                "or places without them"
            )
        for receiver in path.receivers:
            if not follows(model, path.sender, receiver):
                raise InterventionError(
                    f"{receiver} does not come after {path.sender}; a path goes from an earlier "
                    "place to a later one"
                )


def _sender(place: object) -> Sender:
    if isinstance(place, HeadSite) and place.kind == "z" and place.head is not None:
        return place
    if isinstance(place, Site) and place.kind in ("embed", "attn_out", "mlp_out"):
        return place
    raise InterventionError(
        f"{place} cannot send; use embed, attn_out@L, mlp_out@L or one head, as in z@1[3]"
    )


def _receiver(name: str) -> Receiver:
    if name == LOGITS:
        return LOGITS
    place = parse_place(name)
    if isinstance(place, HeadSite) and place.head is not None:
        return place
    if isinstance(place, Site) and place.kind in ("mlp_in", "mlp_out"):
        return place
    raise InterventionError(
        f"{name} cannot receive; use logits, mlp_in@L, or one head as in z@2[1], q@2[1], k@2[1] "
        "or v@2[1]"
    )


def _random_like(changes: Float[Tensor, "E S d"], seed: int) -> Float[Tensor, "E S d"]:
    drawn = torch.randn(changes.shape, generator=torch.Generator().manual_seed(seed)).to(changes)
    return drawn * changes.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)


def _parallel(model: LanguageModel) -> bool:
    assert model.spec is not None
    return model.spec.parallel
