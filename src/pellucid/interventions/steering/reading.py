"""Reading the values that steering vectors are made of: one row of values a prompt."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.core.types import AnySite
from pellucid.interventions.prompts import Batch, as_batch
from pellucid.models.model import LanguageModel

Prompt = str | Sequence[int]
Prompts = Sequence[str] | Sequence[Sequence[int]]
Position = int | Literal["mean"]
"""A token counted from a prompt's end (-1 is its last) or, from 0, its beginning; or the mean of
all its tokens but the special one that opens it."""

ROWS_AT_ONCE = 64


@torch.no_grad()
def values_at(
    model: LanguageModel, prompts: Prompts, sites: Sequence[AnySite], position: Position = -1
) -> dict[AnySite, Float[Tensor, "N d"]]:
    """What some sites hold at one position of each prompt, or on average over it, in float32.

    Args:
        model: is run unedited, no deeper than the last of the sites.
        prompts: texts or ids; none may be empty.
        sites: where to read.
        position: which token of each prompt.

    Raises:
        InterventionError: there is no prompt, or one has no such position.
        PromptError: a prompt cannot be read.
        SiteError: the model has no such site.
    """
    if not len(prompts):
        raise InterventionError("there is no prompt to read; give at least one")
    parts: dict[AnySite, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        batch = as_batch(model, prompts[start : start + ROWS_AT_ONCE])
        weights = _weights(model, batch, position)
        values = model.activations(batch.ids, list(sites), batch.mask)
        for site in sites:
            held = torch.where(batch.mask[..., None], values[site].float(), 0.0)
            parts[site].append(torch.einsum("bs,bsd->bd", weights, held))
    return {site: torch.cat(part) for site, part in parts.items()}


def ids_of(model: LanguageModel, prompt: Prompt) -> list[int]:
    """The ids of one prompt, checked.

    Raises:
        PromptError: the prompt cannot be read.
    """
    ids = model.encode(prompt) if isinstance(prompt, str) else model.encode_ids(prompt)
    numbers: list[int] = ids.tolist()
    return numbers


def _weights(model: LanguageModel, batch: Batch, position: Position) -> Float[Tensor, "B S"]:
    """Each token's share in what is read of its row."""
    if position == "mean":
        counted = text_tokens(model, batch)
        return counted.float() / counted.sum(1, keepdim=True)
    lengths = batch.mask.sum(1, keepdim=True)
    wanted = lengths + position if position < 0 else torch.full_like(lengths, position)
    chosen = batch.mask & (batch.positions == wanted)
    if not bool(chosen.any(1).all()):
        shortest = min(batch.lengths)
        raise InterventionError(
            f"position {position} is beyond a prompt of {shortest} tokens; use -{shortest} to "
            f"{shortest - 1}"
        )
    return chosen.float()


def text_tokens(model: LanguageModel, batch: Batch) -> Bool[Tensor, "B S"]:
    """Every token but padding and the special one that opens a prompt."""
    opening = model.special_token_mask(batch.ids) & (batch.positions == 0)
    return batch.mask & ~opening


def prompts_hash(*groups: Prompts) -> str:
    """A short hash of groups of prompts, for provenance."""
    plain = [[each if isinstance(each, str) else list(each) for each in group] for group in groups]
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:16]
