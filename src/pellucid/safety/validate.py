"""Validation: detection is not control, so the findings are edited and the behaviour watched.

Every arm acts at the decision token of attacks that no earlier step has seen. Its control does as
much to as many features (or in as random a direction): matched random features of the same layer
and rate of activation, clamped the same way or shifted by as long a vector.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DataError
from pellucid.core.places import FeatureSite
from pellucid.core.proportions import wilson
from pellucid.core.types import AnySite, ModuleSite
from pellucid.interventions.targets import order_of
from pellucid.probes.reading import read_features
from pellucid.safety.candidates import SEARCHED, Candidate, leans
from pellucid.safety.discover import Discovery
from pellucid.safety.measures import answered, natural
from pellucid.safety.requests import BENIGN, HARMFUL, REFUSED, Request, of_part
from pellucid.safety.subject import Progress, Subject, silent
from pellucid.safety.treatment import (
    Treatment,
    add_vector,
    clamp_features,
    project_out,
    shift_features,
)

DRAWS = 5
NEAREST = 20
"""A random feature is drawn among so many of the nearest rate of activation."""


def validate(
    subject: Subject,
    discovery: Discovery,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure what the findings do to attacks, beside their controls.

    Args:
        subject: the model, its judge, and the dictionaries of the candidates.
        discovery: what was found.
        seed: of the controls.
        progress: told how far it is.

    Returns:
        A JSON-able record: `arms` with the share of attacks refused (and its 95% interval), the
        mean change of the lean to refusing, and the share of benign requests refused, ungated;
        `verdict` by kind.

    Raises:
        DataError: the part `validate` has no attack or no benign request.
    """
    requests = of_part(discovery.requests, "validate")
    attacks = [request for request in requests if request.is_attack]
    benign = [r for r in requests if r.label == BENIGN and not r.continuation]
    if not attacks or not benign:
        raise DataError(
            f"the part 'validate' has {len(attacks)} attacks and {len(benign)} benign requests; "
            "give more requests"
        )
    arms = _arms(subject, discovery, np.random.default_rng(seed))
    rows = []
    for number, (name, treatments) in enumerate(arms.items()):
        progress("arms", number / len(arms))
        rows.append({"arm": name} | _measured(subject, discovery, attacks, benign, treatments))
    by_name = {row["arm"]: row for row in rows}
    verdict = {
        name: all(
            by_name[name]["refused"]["low"] > by_name[control]["refused"]["high"]
            for control in controls
            if control in by_name
        )
        for name, controls in _CONTROLS.items()
        if name in by_name
    }
    return {"arms": rows, "verdict": verdict, "attacks": len(attacks), "benign": len(benign)}


_CONTROLS = {
    "features": ("random features", "random features, same size"),
    "add direction": ("add random direction",),
    "remove direction": ("remove random direction",),
    "remove probe vector": ("remove random direction",),
}


def residual_sites(discovery: Discovery) -> list[AnySite]:
    """Sites of the residual stream (or named modules) not computed before the probe's, in order."""
    first = order_of(discovery.probe.site, None)
    return [
        site
        for site in discovery.directions
        if isinstance(site, ModuleSite)
        or (
            site.kind.startswith("resid")
            and (first is None or (order_of(site, None) or first) >= first)
        )
    ]


def _arms(
    subject: Subject, discovery: Discovery, rng: np.random.Generator
) -> dict[str, list[Treatment]]:
    """The treatments of each arm: one, or several draws of a control."""
    arms: dict[str, list[Treatment]] = {"nothing": []}
    if discovery.candidates and subject.dictionaries is not None:
        found = {each.site: each.refused_mean for each in discovery.candidates}
        arms["features"] = [clamp_features("features", found)]
        arms |= random_features(subject, discovery, rng)
    sites = residual_sites(discovery)
    if sites:
        vector = discovery.directions[sites[0]]
        arms["add direction"] = [add_vector("add direction", sites[0], vector)]
        arms["add random direction"] = [
            add_vector("add random direction", sites[0], _random_like(vector, rng))
            for _ in range(DRAWS)
        ]
        arms["remove direction"] = [project_out("remove direction", sites[:1], vector)]
        arms["remove random direction"] = [
            project_out("remove random direction", sites[:1], _random_like(vector, rng))
            for _ in range(DRAWS)
        ]
    probe = discovery.probe
    arms["remove probe vector"] = [project_out("remove probe", [probe.site], probe.vector)]
    return arms


def _random_like(vector: Float[Tensor, " d"], rng: np.random.Generator) -> Float[Tensor, " d"]:
    drawn = torch.tensor(rng.standard_normal(len(vector)), dtype=torch.float32)
    return drawn * (vector.norm() / drawn.norm())


def random_features(
    subject: Subject, discovery: Discovery, rng: np.random.Generator
) -> dict[str, list[Treatment]]:
    """Draws of features of the same layer and rate of activation as the candidates.

    Args:
        subject: the model and its dictionaries.
        discovery: whose candidates are matched.
        rng: of the draws.

    Returns:
        `random features`, clamped to their own averages in refused requests, and `random features,
        same size`, shifted so that as long a vector is written as by the candidates.

    Raises:
        DataError: a layer has no other active feature.
    """
    dictionaries = subject.dictionaries
    assert dictionaries is not None
    fitted = [r for r in discovery.requests if r.part == "fit" and r.label == HARMFUL]
    layers = sorted({each.site.layer for each in discovery.candidates})
    attacks = [r for r in fitted if r.is_attack][:SEARCHED]
    refused = [r for r in fitted if not r.is_attack][:SEARCHED]
    on_attacks, on_refused = (
        read_features(subject.model, subject.ids(part), dictionaries, layers=layers, tokens="last")
        for part in (attacks, refused)
    )
    rates = {n: ((on_attacks[n] > 0).float().mean(0) + (on_refused[n] > 0).float().mean(0)) / 2
             for n in layers}  # fmt: skip
    same: list[Treatment] = []
    size: list[Treatment] = []
    for _ in range(DRAWS):
        pairs = _matched(discovery.candidates, rates, rng)
        clamps, shifts = {}, {}
        for candidate, other in pairs:
            layer, mine, drawn = other.layer, candidate.site.feature, other.feature
            clamps[other] = float(on_refused[layer][:, drawn].mean())
            moved = candidate.refused_mean - candidate.attack_mean
            norms = dictionaries[layer].decoder_rows(torch.tensor([mine, drawn])).norm(dim=1)
            shifts[other] = moved * float(norms[0] / norms[1].clamp_min(1e-12))
        same.append(clamp_features("random features", clamps))
        size.append(shift_features("random features, same size", shifts))
    return {"random features": same, "random features, same size": size}


def _matched(
    candidates: Sequence[Candidate],
    rates: dict[int, Float[Tensor, " F"]],
    rng: np.random.Generator,
) -> list[tuple[Candidate, FeatureSite]]:
    """For each candidate another feature of its layer that is active about as often."""
    taken = {each.site for each in candidates}
    pairs = []
    for candidate in candidates:
        layer = candidate.site.layer
        rate = rates[layer]
        order = (rate - rate[candidate.site.feature]).abs().argsort(stable=True).tolist()
        near = [
            FeatureSite(layer, index)
            for index in order
            if FeatureSite(layer, index) not in taken and float(rate[index]) > 0
        ][:NEAREST]
        if not near:
            raise DataError(
                f"layer {layer} has no other active feature to compare {candidate.site} with; "
                "give more requests"
            )
        chosen = near[int(rng.integers(len(near)))]
        taken.add(chosen)
        pairs.append((candidate, chosen))
    return pairs


def _measured(
    subject: Subject,
    discovery: Discovery,
    attacks: Sequence[Request],
    benign: Sequence[Request],
    treatments: Sequence[Treatment],
) -> dict[str, Any]:
    """Figures of an arm, its draws pooled."""
    ids = subject.ids(attacks)
    plain = leans(subject.model, ids, discovery.readout)
    refused: list[str] = []
    over: list[str] = []
    changes, own = [], []
    arms: list[Treatment | None] = [*treatments] or [None]
    for treatment in arms:
        edits = [] if treatment is None else treatment.gated(None)
        answers = answered(subject, attacks, edits)
        refused += answers.verdicts
        own.append(natural(answers, discovery.requests))
        over += answered(subject, benign, edits).verdicts
        lean = leans(subject.model, ids, discovery.readout, edits, subject.dictionaries)
        changes.append(float((lean - plain).mean()))
    return {
        "refused": wilson(refused.count(REFUSED), len(refused)).to_json(),
        "natural": float(np.mean(own)),
        "lean_change": float(np.mean(changes)),
        "benign_refused": wilson(over.count(REFUSED), len(over)).to_json(),
        "draws": max(len(treatments), 1),
    }
