"""Decoder rows of dictionaries as steering vectors, ranked by what they do to the output.

Which features steer is not told by what activates them but by their output score (after Arad,
Mueller and Belinkov 2025, arXiv 2505.20063): steer with the feature on neutral prompts and see
whether the tokens that its own direction promotes really come up. With T the k tokens that the
decoder row promotes most through the unembedding, and rank 0 the likeliest token of V,

    score = max over T of p(t) (1 - rank(t) / V) when steered, less the same unsteered

averaged over prompts: -1 to 1, and about 0 for a feature whose direction does not reach the output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.types import ModuleSite, Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.run import run
from pellucid.interventions.steering.reading import ROWS_AT_ONCE, Prompts, ids_of, values_at
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
        target: the same score with a target's tokens for its own; None without a target.
    """

    layer: int
    feature: int
    score: float
    tokens: tuple[int, ...]
    target: float | None = None


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
    target: Sequence[int] = (),
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
        target: ids of a target's tokens; none to leave that score out.
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
    wanted = torch.tensor(list(target), dtype=torch.long, device=tokens.device)
    scores: list[tuple[float, float | None]] = []
    at_once = max(1, ROWS_AT_ONCE // len(prompts))
    ids = [ids_of(model, each) for each in prompts]
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
            mine = steered[number * len(ids) : (number + 1) * len(ids)]
            own = _risen(mine, plain, tokens[start + number])
            scores.append((own, _risen(mine, plain, wanted) if len(wanted) else None))
    return [
        FeatureScore(
            layer=layer, feature=int(f), score=own, tokens=tuple(row.tolist()), target=other
        )
        for f, (own, other), row in zip(features, scores, tokens, strict=True)
    ]


def rank_features(
    model: LanguageModel,
    dictionaries: DictionarySet,
    target: Sequence[int],
    prompts: Prompts,
    *,
    candidates: Mapping[int, Sequence[int]] | None = None,
    per_layer: int = 32,
    least: float = 0.01,
    rho: float = 1.0,
    top: int = TOP_TOKENS,
) -> list[FeatureScore]:
    """Features that reach the output, those first that raise a target's tokens most.

    Args:
        model: a model of a known family.
        dictionaries: its dictionaries.
        target: ids of the target's tokens.
        prompts: neutral ones, a few.
        candidates: features to score, by layer (see `contrasting_features`); None for those of
            each layer with the largest direct effect on the target.
        per_layer: how many features a layer are scored when no candidates are given.
        least: the lowest output score that is kept.
        rho: relative strength of the test.
        top: how many promoted tokens count as a feature's own.

    Raises:
        DictionaryError: the set has no such layer.
        InterventionError: there is no target or no prompt.
        PromptError: a prompt cannot be read.
    """
    if not len(target):
        raise InterventionError("there is no target token; give at least one word")
    if candidates is None:
        candidates = {
            layer: _promoting(model, dictionaries, layer, target, per_layer)
            for layer in dictionaries.layers
        }
    found = [
        each
        for layer, features in candidates.items()
        for each in output_scores(
            model, dictionaries, layer, features, prompts, target=target, rho=rho, top=top
        )
        if each.score >= least
    ]
    return sorted(found, key=lambda each: -(each.target or 0.0))


@torch.no_grad()
def contrasting_features(
    model: LanguageModel,
    dictionaries: DictionarySet,
    positive: Prompts,
    negative: Prompts,
    *,
    per_layer: int = 32,
) -> dict[int, list[int]]:
    """Features more active after positive prompts than after negative ones, by layer.

    They come in the order of the difference of mean activations at the last token.

    Args:
        model: the model.
        dictionaries: its dictionaries.
        positive: prompts that show a concept.
        negative: prompts that do not.
        per_layer: the most features a layer; fewer where fewer differ.

    Raises:
        InterventionError: a side is empty.
        PromptError: a prompt cannot be read.
    """
    sites = [each.read_site for each in dictionaries]
    high, low = (values_at(model, side, sites) for side in (positive, negative))
    found: dict[int, list[int]] = {}
    for layer in dictionaries.layers:
        dictionary = dictionaries[layer]
        means = [
            dictionary.encode(side[dictionary.read_site]).dense().float().mean(0)
            for side in (high, low)
        ]
        difference = means[0] - means[1]
        order = difference.topk(min(per_layer, len(difference)))
        found[layer] = order.indices[order.values > 0].tolist()
    return found


def _promoting(
    model: LanguageModel,
    dictionaries: DictionarySet,
    layer: int,
    target: Sequence[int],
    count: int,
) -> list[int]:
    gain = _direct_logits(model, dictionaries[layer].decoder())[:, list(target)].amax(1)
    found: list[int] = gain.topk(min(count, len(gain))).indices.tolist()
    return found


def _risen(
    steered: Float[Tensor, "P V"], plain: Float[Tensor, "P V"], tokens: Int[Tensor, " n"]
) -> float:
    """By how much the best of some tokens rises, on average over prompts."""
    return float((steered[:, tokens].amax(1) - plain[:, tokens].amax(1)).mean())


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
