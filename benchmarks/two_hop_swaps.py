"""Two-hop facts: does a residual swapped in from another prompt change the answer, and where?"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor

from pellucid import api
from pellucid.core.pictures import save_picture
from pellucid.core.types import Site
from pellucid.interventions.tracing.draw import heat_map
from pellucid.interventions.tracing.patches import Put, patched_logits
from pellucid.interventions.tracing.slots import slot
from pellucid.models.model import LanguageModel
from pellucid.models.resume import RecordedRun, record
from pellucid.specimen.corpora.facts import PLACES, RELATIONS, STATE_OF, STATES

PICTURE = Path(__file__).parents[1] / "docs" / "two_hop_swaps.png"
TWO_HOP = "the {relation} of the state containing {place} is"
ONE_HOP = "the state of {place} is"
BRIDGE, LAST, ONE_HOP_BRIDGE = 7, 8, 4
SEED = 0
BEFORE_THE_MOVE = (0, 1)
"""Layers whose input still has the answer at the place: later it is at the last token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapPair:
    """A place asked about, one of another state, and another one of the same state."""

    relation: str
    place: str
    donor: str
    same: str

    @property
    def answer(self) -> str:
        """Of the prompt."""
        return STATES[STATE_OF[self.place]][self.relation]

    @property
    def donor_answer(self) -> str:
        """Of the donor's state."""
        return STATES[STATE_OF[self.donor]][self.relation]


def two_hop(count: int) -> dict[str, Any]:
    """Swap every layer and token of `count` pairs, print and return the figures."""
    model = api.load_model("specimen")
    figures: dict[str, list[float]] = defaultdict(list)
    maps = [add_pair(model, pair, figures) for pair in draw_pairs(count)]
    table = {name: summary(values) for name, values in figures.items()}
    for name, row in table.items():
        print(f"{name:62} {row['mean']:6.3f} [{row['low']:.3f}, {row['high']:.3f}] n {row['n']}")
    whole = np.stack(maps)
    words = TWO_HOP.format(relation="RELATION", place="PLACE").split()
    tokens = ["<bos>", *words]
    places = [f"resid_pre@{layer}" for layer in range(model.n_layers)]
    panels = {
        f"effect, mean of {count} pairs": whole[:, 0].mean(0),
        "control: noise of the same size": whole[:, 1].mean(0),
        "control: donor of the same state": whole[:, 2].mean(0),
    }
    save_picture(heat_map("two-hop facts, residual swapped", panels, places, tokens), PICTURE)
    return {
        "pairs": count,
        "seed": SEED,
        "figures": table,
        "effect_map": whole[:, 0].mean(0).tolist(),
        "places": places,
        "tokens": tokens,
    }


def draw_pairs(count: int) -> list[SwapPair]:
    """Pairs whose answers differ, over all places and relations."""
    rng, found = Random(SEED), []
    while len(found) < count:
        relation, (place, donor) = rng.choice(RELATIONS), rng.sample(PLACES, 2)
        same = rng.choice([p for p in PLACES if STATE_OF[p] == STATE_OF[place] and p != place])
        pair = SwapPair(relation=relation, place=place, donor=donor, same=same)
        if pair.answer != pair.donor_answer:
            found.append(pair)
    return found


@torch.no_grad()
def add_pair(model: LanguageModel, pair: SwapPair, figures: dict[str, list[float]]) -> np.ndarray:
    """Note one pair's figures; returns its effect maps: donor, noise, same state."""

    def prompt(place: str) -> Int[Tensor, " S"]:
        return model.encode(TWO_HOP.format(relation=pair.relation, place=place))

    ids = torch.stack([prompt(each) for each in (pair.place, pair.donor, pair.same)])
    mlp = slot(model, Site("mlp_out", 0))
    base, donor, same = record(model, ids, keep=[mlp.point])
    (one_hop,) = record(model, model.encode(ONE_HOP.format(place=pair.donor))[None])
    own, other = (int(model.encode(w)[1]) for w in (pair.answer, pair.donor_answer))
    answered = int(base.logits.argmax()) == own and int(donor.logits.argmax()) == other
    number = len(figures["both prompts answered rightly"])
    figures["both prompts answered rightly"].append(float(answered))
    random = noised(base, donor, SEED + number)
    grids = [grid(base, each) for each in (donor.residuals, random, same.residuals)]
    bridge = [
        [Put(slot(model, Site("resid_pre", layer)), BRIDGE, row[ONE_HOP_BRIDGE])]
        for layer, row in enumerate(one_hop.residuals[: model.n_layers])
    ]
    first = [[Put(mlp, BRIDGE, each.kept[mlp.point][BRIDGE])] for each in (donor, same)]
    copies = [copy for each in grids for copy in each] + bridge + first
    logits = patched_logits(base, copies).logits
    swapped = (logits.argmax(-1) == other).float().numpy()
    kept = (logits.argmax(-1) == own).float().numpy()
    n, length = model.n_layers * ids.shape[1], ids.shape[1]
    maps = swapped[: 3 * n].reshape(3, model.n_layers, length)
    figures["swapped, mlp_out@0 alone, bridge"].append(swapped[-2])
    figures["control, mlp_out@0 alone, bridge, donor of the same state: answer kept"].append(
        kept[-1]
    )
    kept_same = kept[2 * n : 3 * n].reshape(model.n_layers, length)
    others = [position for position in range(length) if position != BRIDGE]
    elsewhere = int(np.random.default_rng(number).choice(others))
    for layer in range(model.n_layers):
        at = f"resid_pre@{layer}"
        figures[f"swapped, {at}, bridge (the place)"].append(maps[0, layer, BRIDGE])
        figures[f"swapped, {at}, last token"].append(maps[0, layer, LAST])
        figures[f"swapped, {at}, bridge, one-hop donor"].append(swapped[3 * n + layer])
        if layer in BEFORE_THE_MOVE:
            figures[f"control, {at}, random other token"].append(maps[0, layer, elsewhere])
        figures[f"control, {at}, bridge, noise of the same size"].append(maps[1, layer, BRIDGE])
        figures[f"control, {at}, bridge, donor of the same state: answer kept"].append(
            kept_same[layer, BRIDGE]
        )
    difference = (logits[:, other] - logits[:, own]).double().numpy()
    low = float(base.logits[other] - base.logits[own])
    high = float(donor.logits[other] - donor.logits[own])
    effects = ((difference[: 3 * n] - low) / (high - low)).reshape(3, model.n_layers, length)
    peaks = effects[0].argmax(axis=1)
    figures["heat map of resid_pre@1 peaks at the bridge"].append(float(peaks[1] == BRIDGE))
    deepest = float(peaks[-1] == LAST)
    figures[f"heat map of resid_pre@{model.n_layers - 1} peaks at the last token"].append(deepest)
    return effects


def grid(base: RecordedRun, residuals: list[Float[Tensor, "S d"]]) -> list[list[Put]]:
    """One copy a layer and token, with the residuals of another run."""
    model = base.model
    return [
        [Put(slot(model, Site("resid_pre", layer)), position, residuals[layer][position])]
        for layer in range(model.n_layers)
        for position in range(len(base.ids))
    ]


def noised(base: RecordedRun, donor: RecordedRun, seed: int) -> list[Float[Tensor, "S d"]]:
    """The base's residuals with random changes as large as those to the donor's."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for old, new in zip(base.residuals, donor.residuals, strict=True):
        drawn = torch.randn(old.shape, generator=generator)
        size = (new - old).norm(dim=-1, keepdim=True)
        rows.append(old + drawn * size / drawn.norm(dim=-1, keepdim=True))
    return rows


def summary(values: list[float]) -> dict[str, float]:
    """Share of the pairs with its 95% Wilson interval."""
    count, total = int(sum(values)), len(values)
    low, high = binomtest(count, total).proportion_ci(method="wilson")
    return {"mean": count / total, "low": float(low), "high": float(high), "n": total}
