"""Decoder rows of dictionaries as steering vectors, ranked by what they do to the output.

Which features steer is not told by what activates them but by their output score (after Arad,
Mueller and Belinkov 2025, arXiv 2505.20063): steer with the feature on neutral prompts and see
whether the tokens that its own direction promotes really come up. With T the k tokens that the
decoder row promotes most through the unembedding, and rank 0 the likeliest token of V,

    score = max over T of p(t) (1 - rank(t) / V) when steered, less the same unsteered

averaged over prompts: -1 to 1, and about 0 for a feature whose direction does not reach the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.types import ModuleSite, Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.prompts import as_batch
from pellucid.interventions.run import run
from pellucid.interventions.steering.reading import ROWS_AT_ONCE, Prompts
from pellucid.interventions.steering.strength import median_norm, strength_for
from pellucid.interventions.steering.vector import SteeringVector, provenance
from pellucid.models.model import LanguageModel

TOP_TOKENS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureScore:
    """A feature and how far it moves the output towards its own tokens.

    Attributes:
        layer: of its dictionary.
        feature: its number.
        score: output score, -1 to 1.
        tokens: ids that its decoder row promotes most, the most promoted first.
    """

    layer: int
    feature: int
    score: float
    tokens: tuple[int, ...]


def feature_vector(
    model: LanguageModel, dictionaries: DictionarySet, layer: int, feature: int
) -> SteeringVector:
    """A feature's decoder row, to be added where its dictionary writes.

    Args:
        model: the model that the dictionaries belong to.
        dictionaries: the dictionaries.
        layer: of the dictionary.
        feature: number of the feature.

    Raises:
        DictionaryError: the set has no such layer.
        InterventionError: the feature is out of range or its decoder row is zero.
    """
    dictionary = dictionaries[layer]
    if not 0 <= feature < dictionary.num_features:
        raise InterventionError(
            f"feature {feature} is out of range; layer {layer} has features 0 to "
            f"{dictionary.num_features - 1}"
        )
    assert isinstance(dictionary.write_site, (Site, ModuleSite))
    return SteeringVector(
        site=dictionary.write_site,
        vector=dictionary.decoder_rows(torch.tensor([feature]))[0],
        method="feature",
        provenance=provenance(
            model, dictionaries=dictionaries.name, layer=layer, feature=int(feature)
        ),
    )


def promoted(
    model: LanguageModel, directions: Float[Tensor, "N d"], top: int = TOP_TOKENS
) -> Int[Tensor, "N top"]:
    """The tokens that residual directions promote most through the final norm's gain.

    Args:
        model: a model of a known family.
        directions: in the residual stream.
        top: how many tokens.
    """
    return _direct_logits(model, directions).topk(top, dim=1).indices


@torch.no_grad()
def output_scores(
    model: LanguageModel,
    dictionaries: DictionarySet,
    layer: int,
    features: Sequence[int],
    prompts: Prompts,
    *,
    rho: float = 1.0,
    top: int = TOP_TOKENS,
) -> list[FeatureScore]:
    """Output scores of some features of a layer, in the order given.

    Args:
        model: a model of a known family.
        dictionaries: its dictionaries.
        layer: of the features.
        features: their numbers.
        prompts: neutral ones, a few; the features steer all their tokens and the next token
            after each counts.
        rho: relative strength that every feature gets.
        top: how many promoted tokens count.

    Raises:
        DictionaryError: the set has no such layer.
        InterventionError: there is no prompt, or a feature is out of range.
        PromptError: a prompt cannot be read.
    """
    if not len(features):
        return []
    vectors = [feature_vector(model, dictionaries, layer, each) for each in features]
    tokens = promoted(model, torch.stack([each.vector for each in vectors]), top)
    norm = median_norm(model, vectors[0], prompts)
    plain = _rank_weighted(run(model, prompts).last)
    scores: list[float] = []
    at_once = max(1, ROWS_AT_ONCE // len(prompts))
    ids = [as_batch(model, [each]).row(0) for each in prompts]
    for start in range(0, len(vectors), at_once):
        part = vectors[start : start + at_once]
        edits = [
            edit
            for number, vector in enumerate(part)
            for edit in vector.interventions(
                strength_for(rho, vector, norm),
                rows=range(number * len(ids), (number + 1) * len(ids)),
            )
        ]
        steered = _rank_weighted(run(model, ids * len(part), edits).last)
        for number in range(len(part)):
            own = tokens[start + number]
            mine = steered[number * len(ids) : (number + 1) * len(ids), own].amax(1)
            scores.append(float((mine - plain[:, own].amax(1)).mean()))
    return [
        FeatureScore(layer=layer, feature=int(f), score=score, tokens=tuple(row.tolist()))
        for f, score, row in zip(features, scores, tokens, strict=True)
    ]


def rank_features(
    model: LanguageModel,
    dictionaries: DictionarySet,
    target: Sequence[int],
    prompts: Prompts,
    *,
    layers: Sequence[int] | None = None,
    candidates: int = 32,
    least: float = 0.01,
    rho: float = 1.0,
    top: int = TOP_TOKENS,
) -> list[FeatureScore]:
    """Features that promote a target, those first whose direction really reaches the output.

    Candidates are the features of each layer with the largest direct effect on the target that
    have a target token among their own top tokens; they are kept when they score enough.

    Args:
        model: a model of a known family.
        dictionaries: its dictionaries.
        target: ids of the target's tokens.
        prompts: neutral ones, a few.
        layers: where to look; None for every layer of the set.
        candidates: how many features a layer are scored.
        least: the lowest score that is kept.
        rho: relative strength of the test.
        top: how many promoted tokens count as a feature's own.

    Raises:
        DictionaryError: the set has no such layer.
        InterventionError: there is no target or no prompt.
        PromptError: a prompt cannot be read.
    """
    if not len(target):
        raise InterventionError("there is no target token; give at least one word")
    found: list[FeatureScore] = []
    for layer in dictionaries.layers if layers is None else layers:
        logits = _direct_logits(model, dictionaries[layer].decoder())
        gain = logits[:, list(target)].amax(1)
        likely = gain.topk(min(candidates, len(gain))).indices
        own = logits[likely].topk(top, dim=1).indices
        wanted = torch.isin(own, torch.tensor(list(target), device=own.device)).any(1)
        chosen = likely[wanted].tolist()
        found += output_scores(model, dictionaries, layer, chosen, prompts, rho=rho, top=top)
    kept = [each for each in found if each.score >= least]
    return sorted(kept, key=lambda each: -each.score)


def _direct_logits(model: LanguageModel, rows: Float[Tensor, "N d"]) -> Float[Tensor, "N V"]:
    """What directions of the residual stream write to the logits, the final scale left out."""
    norm = model.final_norm()
    rows = norm.centre(rows.to(model.device, torch.float32))
    return (rows * norm.gain.float()) @ model.unembedding().float().T


def _rank_weighted(logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """p (1 - rank / V) of every token."""
    p = logits.float().softmax(-1)
    order = p.argsort(dim=-1, descending=True)
    places = torch.arange(p.shape[1], device=p.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return p * (1 - rank / p.shape[1])
