"""Vectors from contrast: what differs inside between texts that show a concept and others.

caa    mean over pairs of h(p+) - h(p-) at the answer position (Panickssery et al. 2024)
mean   mean of h(p+) less mean of h(p-), unpaired
repe   first principal component of the paired differences, sign by majority (Zou et al. 2023)
actadd h(p+) - h(p-) of one pair, padded to equal length (Turner et al. 2023)
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.registry import Registry
from pellucid.core.types import AnySite
from pellucid.interventions.steering.reading import Position, Prompt, Prompts, values_at
from pellucid.interventions.steering.vector import (
    PositionVectors,
    SteeringVector,
    as_site,
    provenance,
)
from pellucid.interventions.where import at
from pellucid.models.model import LanguageModel


def caa(
    model: LanguageModel,
    positive: Prompts,
    negative: Prompts,
    site: AnySite | str,
    *,
    position: Position = -1,
) -> SteeringVector:
    """Contrastive activation addition: the mean paired difference at the answer position.

    Args:
        model: the model to be steered.
        positive: texts that show the concept.
        negative: as many texts, each the counterpart of the positive one at its place.
        site: what is read, and later added to.
        position: the answer's token in each text.

    Raises:
        InterventionError: no pairs, unequal numbers, or no difference.
        PromptError: a text cannot be read.
        SiteError: the model has no such site.
    """
    site = as_site(site)
    vector = _paired(model, positive, negative, site, position).mean(0)
    return _made("caa", model, positive, negative, site, vector, position)


def mean_difference(
    model: LanguageModel,
    positive: Prompts,
    negative: Prompts,
    site: AnySite | str,
    *,
    position: Position = -1,
) -> SteeringVector:
    """Mean over the positive texts less the mean over the negative ones; numbers may differ.

    Args:
        model: the model to be steered.
        positive: texts that show the concept.
        negative: texts that do not.
        site: what is read, and later added to.
        position: the token read, or `mean` for the average of each text.

    Raises:
        InterventionError: a side is empty, or they do not differ.
        PromptError: a text cannot be read.
        SiteError: the model has no such site.
    """
    site = as_site(site)
    _check_sides(positive, negative)
    high, low = (values_at(model, side, [site], position)[site] for side in (positive, negative))
    return _made("mean", model, positive, negative, site, high.mean(0) - low.mean(0), position)


def repe_pca(
    model: LanguageModel,
    positive: Prompts,
    negative: Prompts,
    site: AnySite | str,
    *,
    position: Position = -1,
) -> SteeringVector:
    """Representation reading: the unit vector along which paired differences are largest.

    The differences are not centred: the mean difference is what is looked for. The sign is that of
    the majority of the pairs.

    Args:
        model: the model to be steered.
        positive: texts that show the concept.
        negative: as many texts, each the counterpart of the positive one at its place.
        site: what is read, and later added to.
        position: the token read in each text.

    Raises:
        InterventionError: fewer than two pairs, unequal numbers, or no difference.
        PromptError: a text cannot be read.
        SiteError: the model has no such site.
    """
    site = as_site(site)
    if len(positive) == len(negative) == 1:
        raise InterventionError("repe needs at least 2 pairs for a principal component; got 1")
    differences = _paired(model, positive, negative, site, position)
    component = principal_direction(differences) if bool(differences.any()) else differences[0]
    return _made("repe", model, positive, negative, site, component, position)


def principal_direction(differences: Float[Tensor, "N d"]) -> Float[Tensor, " d"]:
    """First right singular vector of the (uncentred) rows, pointing where most of them do."""
    component = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    votes = float(torch.sign(differences @ component).sum())
    return component if votes >= 0 else -component


def actadd(
    model: LanguageModel, positive: Prompt, negative: Prompt, site: AnySite | str
) -> SteeringVector:
    """Activation addition of one pair, read at the last token of either text.

    Args:
        model: the model to be steered.
        positive: a text that shows the concept.
        negative: its counterpart.
        site: what is read, and later added to.

    Raises:
        InterventionError: the texts do not differ.
        PromptError: a text cannot be read.
        SiteError: the model has no such site.
    """
    site = as_site(site)
    vector = _paired(model, _one(positive), _one(negative), site, -1)[0]
    return _made("actadd", model, _one(positive), _one(negative), site, vector, -1)


def actadd_by_position(
    model: LanguageModel, positive: Prompt, negative: Prompt, site: AnySite | str
) -> PositionVectors:
    """Activation addition of one pair, a vector for each of the prompt's first positions.

    The shorter text is padded on the right (with a space where that is one token, else with the
    padding token), which changes nothing before the padding. Positions where the two agree, such
    as the opening special token, get no vector.

    Args:
        model: the model to be steered.
        positive: a text that shows the concept.
        negative: its counterpart.
        site: what is read, and later added to.

    Raises:
        InterventionError: the texts do not differ.
        PromptError: a text cannot be read.
        SiteError: the model has no such site.
    """
    site = as_site(site)
    pair = [
        model.encode(each) if isinstance(each, str) else model.encode_ids(each)
        for each in (positive, negative)
    ]
    length = max(len(ids) for ids in pair)
    padding = _padding_id(model)
    padded = torch.stack(
        [torch.nn.functional.pad(ids, (0, length - len(ids)), value=padding) for ids in pair]
    )
    values = model.activations(padded, [site])[site].float()
    difference = values[0] - values[1]
    record = provenance(model, _one(positive), _one(negative), padding=padding)
    parts = tuple(
        SteeringVector(site=site, vector=row, method="actadd", where=at(place), provenance=record)
        for place, row in enumerate(difference)
        if bool(row.any())
    )
    if not parts:
        raise InterventionError(
            f"the two texts give the same values at {site}; give texts that differ"
        )
    return PositionVectors(parts)


CONTRASTS: Registry[Callable[..., SteeringVector]] = Registry(
    "steering method", {"caa": caa, "mean": mean_difference, "repe": repe_pca}
)
"""Methods that take (model, positive texts, negative texts, site, position=...)."""


def _padding_id(model: LanguageModel) -> int:
    special = model.special_tokens
    spaces = (
        [] if model.tokenizer is None else model.tokenizer.encode(" ", add_special_tokens=False)
    )
    choices = [*(spaces if len(spaces) == 1 else []), special.pad, special.first, 0]
    return next(each for each in choices if each is not None)


def _one(prompt: Prompt) -> Any:
    return [prompt]


def _paired(
    model: LanguageModel, positive: Prompts, negative: Prompts, site: AnySite, position: Position
) -> Float[Tensor, "N d"]:
    _check_sides(positive, negative)
    if len(positive) != len(negative):
        raise InterventionError(
            f"there are {len(positive)} positive and {len(negative)} negative texts, and this "
            "method needs pairs; give as many of both, or use mean_difference"
        )
    high, low = (values_at(model, side, [site], position)[site] for side in (positive, negative))
    return high - low


def _check_sides(positive: Prompts, negative: Prompts) -> None:
    for name, side in (("positive", positive), ("negative", negative)):
        if not len(side):
            raise InterventionError(f"there are no {name} texts; give at least one on either side")


def _made(
    method: str,
    model: LanguageModel,
    positive: Prompts,
    negative: Prompts,
    site: AnySite,
    vector: Float[Tensor, " d"],
    position: Position,
) -> SteeringVector:
    record = provenance(model, positive, negative, position=position)
    return SteeringVector(site=site, vector=vector, method=method, provenance=record)
