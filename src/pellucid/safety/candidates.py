"""Which features make a model answer what it ought to refuse: ranked by what they do to its output.

At the decision token, give feature i the activation it has on average when the model refuses. To
first order the lean to refusing changes by

    (refused mean_i - activation_i) * decoder_i . gradient at the site it writes to

(attribution patching, features instead of sites). The best few are taken, clamped for real, and the
rest ranked again under those clamps, until the model refuses: a greedy search whose steps are all
measured. Suffixes: B prompts, F features of a layer, d width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.places import FeatureSite, parse_place
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.operations import Clamp, Custom
from pellucid.interventions.run import run, run_with_cache
from pellucid.interventions.spec import Intervention
from pellucid.models.model import LanguageModel
from pellucid.safety.readout import Readout
from pellucid.safety.treatment import DECISION, Treatment, clamp_features

ROUND = 4
LARGEST = 24
ENOUGH = 0.99
SEARCHED = 128
"""Attacks and refusals that a search runs on, at most."""
Prompts = Sequence[Sequence[int]]
Means = Mapping[int, Float[Tensor, " F"]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A feature that holds a refusal back.

    Attributes:
        site: the feature.
        refused_mean: its average activation at the decision token of refused requests.
        attack_mean: the same in the attacks.
        predicted: first-order change of the lean to refusing when it is given that activation,
            in the round in which it was chosen.
        measured: the change when it alone is given that activation.
        round: in which it was chosen.
    """

    site: FeatureSite
    refused_mean: float
    attack_mean: float
    predicted: float
    measured: float
    round: int

    def to_json(self) -> dict[str, Any]:
        """The candidate as a JSON-able record."""
        return asdict(self) | {"site": str(self.site)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Candidate":
        """The inverse of `to_json`.

        Raises:
            SiteError: the site is none.
        """
        site = parse_place(record["site"])
        assert isinstance(site, FeatureSite)
        return cls(**{**record, "site": site})


@final
@dataclass(frozen=True, slots=True)
class Search:
    """The candidates and how far they go.

    Attributes:
        candidates: in the order they were chosen.
        restored: share of the attacks that lean to refusing after each round.
        lean: mean lean to refusing before the first round and after each.
    """

    candidates: list[Candidate]
    restored: list[float]
    lean: list[float]

    def treatment(self, name: str = "features") -> Treatment:
        """All candidates clamped to their refused means."""
        return clamp_features(name, {each.site: each.refused_mean for each in self.candidates})


def search(
    model: LanguageModel,
    dictionaries: DictionarySet,
    attacks: Prompts,
    attack_means: Means,
    refused_means: Means,
    readout: Readout,
) -> Search:
    """Choose features until nearly all attacks lean to refusing, or `LARGEST` are chosen.

    Args:
        model: the model.
        dictionaries: of its features.
        attacks: prompts that it answers and ought to refuse.
        attack_means: the average activation of each feature at their decision token, by layer.
        refused_means: the same in refused requests.
        readout: of the lean to refusing.

    Raises:
        DictionaryError: dictionaries of another model.
    """
    chosen: dict[FeatureSite, tuple[float, int]] = {}
    restored: list[float] = []
    lean: list[float] = []
    while True:
        clamps = [_clamp(site, refused_means) for site in chosen]
        leans, effects = _ranked(model, dictionaries, attacks, refused_means, readout, clamps)
        lean.append(float(leans.mean()))
        if chosen:
            restored.append(float((leans > 0).float().mean()))
        if len(chosen) >= LARGEST or (restored and restored[-1] >= ENOUGH):
            break
        best = sorted(
            (-float(value), FeatureSite(layer, int(index)))
            for layer, row in effects.items()
            for value, index in zip(*row.topk(min(LARGEST, len(row))), strict=True)
            if FeatureSite(layer, int(index)) not in chosen and value > 0
        )[:ROUND]
        if not best:
            break
        for value, site in best:
            chosen[site] = (-value, len(restored) + 1)
    single = measured_alone(
        model, dictionaries, attacks, readout, [_clamp(site, refused_means) for site in chosen]
    )
    candidates = [
        Candidate(
            site=site,
            refused_mean=float(refused_means[site.layer][site.feature]),
            attack_mean=float(attack_means[site.layer][site.feature]),
            predicted=predicted,
            measured=alone,
            round=number,
        )
        for (site, (predicted, number)), alone in zip(chosen.items(), single, strict=True)
    ]
    return Search(candidates, restored, lean)


@torch.no_grad()
def measured_alone(
    model: LanguageModel,
    dictionaries: DictionarySet,
    prompts: Prompts,
    readout: Readout,
    edits: Sequence[Intervention],
) -> list[float]:
    """The mean change of the lean to refusing under each edit by itself.

    Args:
        model: the model.
        dictionaries: of the features that the edits name.
        prompts: token ids.
        readout: of the lean.
        edits: one by one.
    """
    rows = [list(prompt) for prompt in prompts]
    plain = readout(run(model, rows).last)
    return [
        float((readout(run(model, rows, [edit], dictionaries=dictionaries).last) - plain).mean())
        for edit in edits
    ]


@torch.no_grad()
def leans(
    model: LanguageModel,
    prompts: Prompts,
    readout: Readout,
    edits: Sequence[Intervention] = (),
    dictionaries: DictionarySet | None = None,
) -> Float[Tensor, " B"]:
    """The lean to refusing of each prompt under some edits.

    Args:
        model: the model.
        prompts: token ids.
        readout: of the lean.
        edits: the same for all.
        dictionaries: of the features that the edits name.
    """
    rows = [list(prompt) for prompt in prompts]
    return readout(run(model, rows, edits, dictionaries=dictionaries).last)


def _clamp(site: FeatureSite, means: Means) -> Intervention:
    return Intervention(site, Clamp(float(means[site.layer][site.feature])), DECISION)


def _ranked(
    model: LanguageModel,
    dictionaries: DictionarySet,
    prompts: Prompts,
    means: Means,
    readout: Readout,
    clamps: Sequence[Intervention],
) -> tuple[Float[Tensor, " B"], dict[int, Float[Tensor, " F"]]]:
    """The lean under some clamps, and every feature's predicted effect in addition to them."""
    layers = sorted(means)
    leaves = {
        layer: torch.zeros(len(prompts), model.d_model, device=model.device, requires_grad=True)
        for layer in layers
    }

    def grow(layer: int) -> Intervention:
        return Intervention(
            dictionaries[layer].write_sites[0],
            Custom(f"gradient {layer}", lambda value: value + leaves[layer].to(value)),
            DECISION,
        )

    places = [dictionaries[layer].read_site for layer in layers]
    made, cache = run_with_cache(
        model,
        [list(prompt) for prompt in prompts],
        places,
        [*clamps, *(grow(layer) for layer in layers)],
        dictionaries=dictionaries,
    )
    lean = readout(made.last)
    gradients = torch.autograd.grad(lean.sum(), [leaves[layer] for layer in layers])
    ends = made.batch.positions.argmax(dim=1)
    rows = torch.arange(len(ends), device=ends.device)
    effects = {}
    with torch.no_grad():
        for layer, place, gradient in zip(layers, places, gradients, strict=True):
            dictionary = dictionaries[layer]
            read = cache[str(place)][rows, ends]
            change = means[layer].to(read) - dictionary.encode(read).dense()
            along = gradient @ dictionary.decoder().to(gradient).T
            effects[layer] = (change * along).mean(0)
    return lean.detach(), effects
