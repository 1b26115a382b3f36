"""Which features carry an injection's effect on an answer: gradient times change, summed up.

While a vector is added at strengths from 0 to s, the logit of yes less that of no goes from y(0)
to y(s). At any layer above the injection all of that passes through the residual, whose change is
that of its features, of the dictionary's error, and of what passes by the MLP. So at every layer

    y(s) - y(0) = sum over features of  integral of (dy/dr . d_i) df_i  + error + bypass

with r the residual after the layer and d_i the feature's decoder vector. Macar et al. (2026) write
df_i as a Jacobian-vector product times d alpha; here it is the difference between neighbouring
strengths, which also counts the jumps of features that a TopK turns on and off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.attribution.explain import LogitDifference
from pellucid.attribution.trace import Trace
from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.graph import AttributionGraph
from pellucid.interventions.operations import Add
from pellucid.interventions.run import run_with_cache
from pellucid.interventions.spec import Intervention
from pellucid.interventions.where import window
from pellucid.introspection.concepts import site_after
from pellucid.introspection.dialogue import Prompt
from pellucid.introspection.injection import Injection
from pellucid.models.model import LanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureEffect:
    """What one feature at one token contributes to the change of yes less no.

    Attributes:
        layer, position, feature: which.
        effect: logits; positive towards yes.
        change: of its activation, from no injection to the full one.
        at_rest: its activation without an injection.
    """

    layer: int
    position: int
    feature: int
    effect: float
    change: float
    at_rest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerAccount:
    """One layer's complete account; the three parts sum to the total but for quadrature."""

    layer: int
    features: float
    error: float
    bypass: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.features + self.error + self.bypass


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringAttribution:
    """How an injection changed an answer, feature by feature.

    Attributes:
        ids: of the prompt.
        tokens: their texts.
        strengths: at which the model was run.
        gaps: logit of yes less logit of no there.
        accounts: one a layer above the injection that has a dictionary.
        effects: the features with the largest effects, largest first.
        pair: the ids of yes and no.
        dictionaries: the name of their set.
    """

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    strengths: tuple[float, ...]
    gaps: tuple[float, ...]
    accounts: tuple[LayerAccount, ...]
    effects: tuple[FeatureEffect, ...]
    pair: tuple[int, int]
    dictionaries: str

    @property
    def total(self) -> float:
        """The measured change of yes less no."""
        return self.gaps[-1] - self.gaps[0]

    @property
    def quadrature_error(self) -> float:
        """The largest gap between a layer's account and the measured change."""
        return max(abs(each.total - self.total) for each in self.accounts)

    @property
    def carriers(self) -> list[FeatureEffect]:
        """Features that the injection raises and that push towards yes, strongest first."""
        return [each for each in self.effects if each.effect > 0 and each.change > 0]

    @property
    def silenced(self) -> list[FeatureEffect]:
        """Features active at rest that the injection lowers, and yes rises by it: gates."""
        return [each for each in self.effects if each.effect > 0 and each.change < 0]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return {
            "total": self.total,
            "quadrature_error": self.quadrature_error,
            "dictionaries": self.dictionaries,
            "layers": [
                {"layer": a.layer, "features": a.features, "error": a.error, "bypass": a.bypass}
                for a in self.accounts
            ],
            "effects": [
                {name: getattr(each, name) for name in FeatureEffect.__slots__}
                for each in self.effects
            ],
        }


def attribute_steering(
    model: LanguageModel,
    dictionaries: DictionarySet,
    prompt: Prompt,
    injection: Injection,
    *,
    layer: int,
    yes: int,
    no: int,
    steps: int = 32,
    top: int = 100,
) -> SteeringAttribution:
    """Account for an injection's effect on yes less no at the end of a prompt.

    Args:
        model: the model.
        dictionaries: transcoders; those of layers above the injection are used.
        prompt: what is asked.
        injection: at its full strength.
        layer: after which it is added.
        yes, no: ids of the two answers.
        steps: differences that the integral is cut into.
        top: how many features to keep.

    Raises:
        ConfigError: no step, or no transcoder above the injection.
        InterventionError: the injection did not happen.
    """
    above = [number for number in dictionaries.layers if number > layer]
    wrong = [number for number in above if dictionaries[number].kind not in _KINDS]
    if steps < 1 or not above or wrong:
        raise ConfigError(
            f"steering attribution after layer {layer} with {steps} steps needs transcoders above "
            f"it, and {dictionaries.name!r} has layers {dictionaries.layers} "
            f"({dictionaries[dictionaries.layers[0]].kind}); give at least 1 step and a set of "
            "transcoders with later layers"
        )
    shares = torch.linspace(0, 1, steps + 1)
    sites = {number: _sites(number) for number in above}
    edits = [
        Intervention(
            site=site_after(layer),
            op=Add((injection.vector * share).requires_grad_()),
            where=window(injection.start, injection.stop),
            rows=(row,),
        )
        for row, share in enumerate(shares)
    ]
    places = [str(site) for three in sites.values() for site in three]
    with torch.enable_grad():
        done, values = run_with_cache(model, [prompt.ids] * (steps + 1), places, edits)
        gaps = done.last[:, yes] - done.last[:, no]
        residuals = [values[str(sites[number][2])] for number in above]
        gradients = torch.autograd.grad(gaps.sum(), residuals)
    accounts, effects = [], []
    for number, gradient in zip(above, gradients, strict=True):
        reads, writes, residual = (values[str(site)].detach() for site in sites[number])
        account, own = _layer(dictionaries[number], number, gradient, reads, writes, residual)
        accounts.append(account)
        effects += _largest(own, number, top)
    effects.sort(key=lambda each: -abs(each.effect))
    return SteeringAttribution(
        ids=prompt.ids,
        tokens=tuple(model.token_texts(list(prompt.ids))),
        strengths=tuple(shares.tolist()),
        gaps=tuple(gaps.detach().tolist()),
        accounts=tuple(accounts),
        effects=tuple(effects[:top]),
        pair=(yes, no),
        dictionaries=dictionaries.name,
    )


@torch.no_grad()
def default_gates(
    model: LanguageModel,
    dictionaries: DictionarySet,
    prompts: Sequence[Prompt],
    *,
    yes: int,
    no: int,
    top: int = 20,
) -> list[FeatureEffect]:
    """Features that say no by default: most negative (d_i . (u_yes - u_no)) x mean activation.

    u are rows of the unembedding with the final norm's gain. Activations are those at the last
    token, over prompts without an injection (Macar et al. 2026).

    Args:
        model: the model.
        dictionaries: transcoders.
        prompts: questions, nothing injected.
        yes, no: ids of the two answers.
        top: how many to give, most negative first.
    """
    rows, gain = model.unembedding(), model.final_norm().gain
    direction = (rows[yes] - rows[no]).float()
    direction = direction * gain.float()
    found = []
    for layer in dictionaries.layers:
        dictionary = dictionaries[layer]
        reads = torch.cat(
            [
                model.activations(torch.tensor([each.ids]), [Site("mlp_in", layer)])[
                    Site("mlp_in", layer)
                ][:, -1]
                for each in prompts
            ]
        )
        mean = dictionary.encode(reads).dense().mean(dim=0)
        scores = mean * (dictionary.decoder() @ direction.to(dictionary.compute_dtype))
        for feature in scores.argsort()[:top].tolist():
            found.append(
                FeatureEffect(
                    layer=layer,
                    position=-1,
                    feature=feature,
                    effect=float(scores[feature]),
                    change=0.0,
                    at_rest=float(mean[feature]),
                )
            )
    return sorted(found, key=lambda each: each.effect)[:top]


def steering_graph(
    model: LanguageModel,
    dictionaries: DictionarySet,
    result: SteeringAttribution,
    *,
    max_features: int = 1024,
) -> AttributionGraph:
    """The attribution graph of yes less no without the injection, the steering account noted in it.

    It explains the answer that the injection starts from, gates included; features that only the
    injection turns on are in its metadata alone (`steering`).

    Args:
        model: the model.
        dictionaries: as for `attribute_steering`.
        result: what that gave.
        max_features: the most features of the graph.

    Raises:
        DictionaryError: the dictionaries do not fit the model.
    """
    graph = Trace(model, list(result.ids), dictionaries).graph(
        LogitDifference(*result.pair), max_features=max_features
    )
    return graph.noting(metadata=graph.metadata | {"steering": result.to_json()})


_KINDS = ("transcoder",)
Own = tuple[Float[Tensor, "S F"], Float[Tensor, "S F"], Float[Tensor, "S F"]]


def _sites(layer: int) -> tuple[Site, Site, Site]:
    return Site("mlp_in", layer), Site("mlp_out", layer), Site("resid_post", layer)


@torch.no_grad()
def _layer(
    dictionary: Dictionary,
    layer: int,
    gradient: Float[Tensor, "K S d"],
    reads: Float[Tensor, "K S d"],
    writes: Float[Tensor, "K S d"],
    residual: Float[Tensor, "K S d"],
) -> tuple[LayerAccount, Own]:
    """A layer's account; of each feature its effect, its change and its activation at rest."""
    decoder = dictionary.decoder()
    before = first = dictionary.encode(reads[0]).dense()
    effects = torch.zeros_like(before)
    whole = written = 0.0
    for step in range(len(reads) - 1):
        slope = (gradient[step] + gradient[step + 1]).to(decoder) / 2
        after = dictionary.encode(reads[step + 1]).dense()
        effects += (slope @ decoder.T) * (after - before)
        before = after
        written += float((slope * (writes[step + 1] - writes[step]).to(decoder)).sum())
        whole += float((slope * (residual[step + 1] - residual[step]).to(decoder)).sum())
    features = float(effects.sum())
    account = LayerAccount(
        layer=layer, features=features, error=written - features, bypass=whole - written
    )
    return account, (effects, before - first, first)


def _largest(own: Own, layer: int, top: int) -> list[FeatureEffect]:
    effects, change, rest = own
    width = effects.shape[1]
    order: Int[Tensor, " n"] = effects.abs().flatten().topk(min(top, effects.numel())).indices
    return [
        FeatureEffect(
            layer=layer,
            position=place // width,
            feature=place % width,
            effect=float(effects.flatten()[place]),
            change=float(change.flatten()[place]),
            at_rest=float(rest.flatten()[place]),
        )
        for place in order.tolist()
        if effects.flatten()[place] != 0
    ]
