"""Activation patching: every place at every token, in either direction, with its controls.

    effect = (m(patched) - m(base)) / (m(source) - m(base))

Denoising patches the clean run's values into the corrupt run (base corrupt, source clean): is this
place enough? Noising does the reverse: is it needed? (Zhang and Nanda 2024; Heimersheim and Nanda
2024.) The controls are random changes of the same size, and values of a third prompt that has the
answer of the base.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError, PromptError
from pellucid.core.places import HEAD_KINDS, HeadSite, parse_place
from pellucid.interventions.tracing.contrast import Contrast, Direction, Prompt
from pellucid.interventions.tracing.patches import Put, patched_logits
from pellucid.interventions.tracing.result import SweepResult
from pellucid.interventions.tracing.slots import Slot, TracingSite, slot
from pellucid.models.model import LanguageModel
from pellucid.models.resume import RecordedRun, record

SWEPT_KINDS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_in")
OnProgress = Callable[[int, int], None]


def places_of(
    model: LanguageModel, site: str | Sequence[str], layers: Sequence[int] | None = None
) -> list[TracingSite]:
    """The places that a sweep goes through, in order of depth.

    Args:
        model: that has them.
        site: a kind (`resid_pre`, `attn_out`, `mlp_out`, ..., or `z`, `q`, `k`, `v` for every head
            apart), or names of single places.
        layers: of a kind; all if not given.

    Raises:
        SiteError: the model has no such place, or the kind is unknown.
    """
    if not isinstance(site, str):
        return [_traceable(model, parse_place(name)) for name in site]
    chosen = range(model.n_layers) if layers is None else layers
    if site in HEAD_KINDS:
        return [
            HeadSite(site, layer, head)
            for layer in chosen
            for head in range(_n_heads(model, layer, site))
        ]
    if site not in SWEPT_KINDS:
        return [_traceable(model, parse_place(site))]
    return [_traceable(model, parse_place(f"{site}@{layer}")) for layer in chosen]


def patching_sweep(
    model: LanguageModel,
    pair: Contrast,
    site: str | Sequence[str] = "resid_pre",
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    direction: Direction = "denoise",
    noise: int = 1,
    same: Prompt | None = None,
    skip_equal: bool = True,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> SweepResult:
    """Patch every place at every token, one at a time.

    Args:
        model: to patch.
        pair: the two prompts.
        site: which places (see `places_of`).
        layers: of a kind of place; all if not given.
        positions: tokens; all if not given.
        direction: `denoise`: clean values into the corrupt run; `noise`: the reverse.
        noise: how many random changes of the same size a patch is compared with.
        same: a third prompt as long, with the answer of the patched one: its values should carry
            nothing over.
        skip_equal: do not run patches whose value is the same in both runs: their effect is 0.
        seed: of the noise.
        on_progress: called with how many copies are done, and of how many.

    Raises:
        SiteError: the model has no such place.
        PromptError: `same` cannot be read or is of another length.
        InterventionError: a position is beyond the prompt, or nothing differs anywhere.
        ConfigError: unknown direction.
    """
    places = places_of(model, site, layers)
    columns = absolute_positions(len(pair.clean), positions)
    base_ids, source_ids = pair.ends(direction)
    grid = Grid(slots=[slot(model, place) for place in places], positions=columns)
    points = list(dict.fromkeys(each.point for each in grid.slots))
    thirds = [] if same is None else [_third(model, same, pair)]
    base, *others = record(model, torch.stack([base_ids, source_ids, *thirds]), keep=points)
    own, donors = grid.values(base), [grid.values(each) for each in others]
    donors += [noised(own, donors[0], seed + draw) for draw in range(noise)]
    changes = [grid.relative(own, each) for each in donors]
    if not (changes[0] > 0).any():
        raise InterventionError(
            f"the two runs have the same values at {named(places)}, tokens {columns}; choose "
            "places and tokens after the first difference"
        )
    wanted = [np.ones_like(each, bool) if not skip_equal else each > 0 for each in changes]
    copies = [put for d, w in zip(donors, wanted, strict=True) for put in grid.copies(d, w)]
    patched = patched_logits(base, copies, on_progress=on_progress)
    effects = pair.effects(patched.logits, direction).double().cpu().numpy()
    maps = _spread(effects, wanted)
    drawn = maps[len(maps) - noise :]
    settings = {
        "method": "patching",
        "site": site if isinstance(site, str) else list(site),
        "direction": direction,
        "metric": pair.metric_name,
        "answer": pair.answer_text,
        "other": pair.other_text,
        "clean_value": pair.clean_value,
        "corrupt_value": pair.corrupt_value,
        "noise_draws": noise,
        "seed": seed,
    }
    texts = pair.corrupt_tokens, pair.clean_tokens
    own_texts, donor_texts = texts if direction == "denoise" else texts[::-1]
    return SweepResult(
        title=f"{named(places)}: {direction} by patching, {pair.metric_name}",
        places=[str(place) for place in places],
        positions=columns,
        tokens=[own_texts[p] for p in columns],
        donor_tokens=[donor_texts[p] for p in columns],
        effect=maps[0],
        noise=np.mean(drawn, axis=0) if drawn else None,
        same=None if same is None else maps[1],
        relative_change=changes[0],
        settings=settings,
        note=patched.note,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The places and tokens of a sweep; values are one tensor a place, `[positions, width]`."""

    slots: list[Slot]
    positions: list[int]

    def values(self, run: RecordedRun) -> list[Float[Tensor, "P w"]]:
        """What a run has there."""
        return [each.read(run.kept[each.point])[self.positions] for each in self.slots]

    def relative(self, old: list[Tensor], new: list[Tensor]) -> np.ndarray:
        """|new - old| / |old| of every place and token, 0 where that is rounding."""
        pairs = zip(old, new, strict=True)
        rows = [(b - a).norm(dim=-1) / a.norm(dim=-1).clamp(min=1e-12) for a, b in pairs]
        found = torch.stack(rows).double().cpu().numpy()
        return np.where(found > 1e-6, found, 0.0)

    def copies(self, values: list[Tensor], wanted: np.ndarray) -> list[list[Put]]:
        """One copy a wanted cell, row by row."""
        return [
            [Put(self.slots[row], self.positions[column], values[row][column])]
            for row, column in np.argwhere(wanted).tolist()
        ]


def _spread(effects: np.ndarray, wanted: list[np.ndarray]) -> list[np.ndarray]:
    """The effects back on the grids they were wanted on, 0 elsewhere."""
    maps, at = [], 0
    for each in wanted:
        full = np.zeros(each.shape)
        full[each] = effects[at : at + int(each.sum())]
        at += int(each.sum())
        maps.append(full)
    return maps


def noised(old: list[Tensor], new: list[Tensor], seed: int) -> list[Tensor]:
    """Random changes of the old values, as long as the changes to the new ones."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for a, b in zip(old, new, strict=True):
        draw = torch.randn(a.shape, generator=generator).to(a)
        length = (b - a).norm(dim=-1, keepdim=True)
        found.append(a + draw * length / draw.norm(dim=-1, keepdim=True))
    return found


def absolute_positions(length: int, positions: Sequence[int] | None) -> list[int]:
    """Positions in a prompt of that length, all of them for None; negative ones from its end.

    Raises:
        InterventionError: one is beyond the prompt.
    """
    chosen = range(length) if positions is None else positions
    for position in chosen:
        if not -length <= position < length:
            raise InterventionError(
                f"position {position} is beyond the prompt of {length} tokens; use {-length} to "
                f"{length - 1}"
            )
    return [position % length for position in chosen]


def _third(model: LanguageModel, same: Prompt, pair: Contrast) -> Tensor:
    ids = model.encode(same) if isinstance(same, str) else model.encode_ids(same)
    if len(ids) != len(pair.clean):
        raise PromptError(
            f"the control prompt has {len(ids)} tokens and the others {len(pair.clean)}; use one "
            "as long"
        )
    return ids


def _traceable(model: LanguageModel, place: Any) -> TracingSite:
    slot(model, place)
    return place


def _n_heads(model: LanguageModel, layer: int, kind: str) -> int:
    attention = model.block(layer).attention
    return attention.n_heads if kind in ("z", "q") else attention.n_kv_heads


def named(places: Sequence[TracingSite]) -> str:
    """The places in a few words: the only one, or the first and the last."""
    names = [str(place) for place in places]
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
