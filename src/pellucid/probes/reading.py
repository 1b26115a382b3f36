"""Activations of many prompts at chosen tokens: what probes are fitted on.

Prompts are batched with padding on the right, which no real token sees. Suffixes: N prompts,
B prompts of one batch, S positions, F features.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pellucid.core.errors import ConfigError, DataError, SiteError
from pellucid.core.types import AnySite, SparseCodes
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel

Tokens = Literal["last", "mean", "max"]
BATCH = 64
"""Prompts a forward."""

Prompts = Sequence[Sequence[int]]
"""Token ids of each prompt, the special first token included."""


def read_sites(
    model: LanguageModel, prompts: Prompts, sites: Sequence[AnySite], *, tokens: Tokens = "last"
) -> dict[AnySite, Float[Tensor, "N d"]]:
    """One vector a prompt at each site.

    Args:
        model: the model.
        prompts: token ids a prompt.
        sites: where to read.
        tokens: the last token's value, or the mean or the elementwise largest over all tokens but
            the special one that opens a prompt.

    Raises:
        ConfigError: unknown `tokens`.
        DataError: no prompts.
        SiteError: the model has no such site, or its value is not one vector a token.
    """
    check_tokens(tokens)
    parts: dict[AnySite, list[Tensor]] = {site: [] for site in sites}
    order = _by_length(prompts)
    for ids, mask in _batches(model, prompts, order):
        with torch.no_grad():
            values = model.activations(ids, sites, mask)
        for site, value in values.items():
            if value.ndim != 3:
                raise SiteError(
                    f"{site} has shape {tuple(value.shape)}, not one vector a token; probe another"
                )
            parts[site].append(_reduced(value.float(), _counted(model, ids, mask), mask, tokens))
    return {site: _unsorted(part, order) for site, part in parts.items()}


def read_features(
    model: LanguageModel,
    prompts: Prompts,
    dictionaries: DictionarySet,
    *,
    layers: Sequence[int] | None = None,
    tokens: Tokens = "max",
) -> dict[int, Float[Tensor, "N F"]]:
    """The activations of every feature of some layers, one row a prompt.

    Args:
        model: the model.
        prompts: token ids a prompt.
        dictionaries: of this model.
        layers: which; all by default.
        tokens: as in `read_sites`; `max` says how strongly a feature fired anywhere.

    Raises:
        ConfigError: unknown `tokens`.
        DataError: no prompts.
        DictionaryError: the dictionaries are not of this model.
    """
    check_tokens(tokens)
    dictionaries.check_model(model, every_layer=False)
    chosen = dictionaries.layers if layers is None else list(layers)
    sites = {layer: dictionaries[layer].read_site for layer in chosen}
    parts: dict[int, list[Tensor]] = {layer: [] for layer in chosen}
    order = _by_length(prompts)
    for ids, mask in _batches(model, prompts, order):
        with torch.no_grad():
            values = model.activations(ids, list(set(sites.values())), mask)
            for layer, site in sites.items():
                if tokens == "last":
                    rows = torch.arange(len(ids), device=ids.device)
                    last = values[site][rows, _last(mask)]
                    parts[layer].append(dictionaries[layer].encode(last).dense().float())
                    continue
                codes = dictionaries[layer].encode(values[site].flatten(0, 1))
                parts[layer].append(_reduced_codes(codes, _counted(model, ids, mask), tokens))
    return {layer: _unsorted(part, order) for layer, part in parts.items()}


def check_tokens(tokens: str) -> None:
    """Refuse an unknown choice of tokens.

    Raises:
        ConfigError: it is unknown.
    """
    if tokens not in get_args(Tokens):
        raise ConfigError(f"tokens is {tokens!r}; use one of {', '.join(get_args(Tokens))}")


def _by_length(prompts: Prompts) -> list[int]:
    """An order in which little is padded."""
    if not len(prompts):
        raise DataError("there are no prompts to read; give at least one")
    return sorted(range(len(prompts)), key=lambda number: len(prompts[number]))


def _unsorted(parts: Sequence[Tensor], order: Sequence[int]) -> Tensor:
    """The rows of all parts in the order of the prompts."""
    whole = torch.cat(list(parts))
    return torch.empty_like(whole).index_copy_(0, torch.tensor(order, device=whole.device), whole)


def _batches(
    model: LanguageModel, prompts: Prompts, order: Sequence[int]
) -> Iterator[tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]]:
    for start in range(0, len(order), BATCH):
        part = [prompts[number] for number in order[start : start + BATCH]]
        ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.int64)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, prompt in enumerate(part):
            ids[row, : len(prompt)] = torch.tensor(list(prompt))
            mask[row, : len(prompt)] = True
        yield ids.to(model.device), mask.to(model.device)


def _counted(
    model: LanguageModel, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]
) -> Bool[Tensor, "B S"]:
    """Every real token but the special one that opens its prompt."""
    counted = mask.clone()
    counted[:, 0] &= ~model.special_token_mask(ids[:, 0])
    return counted


def _last(mask: Bool[Tensor, "B S"]) -> Int[Tensor, " B"]:
    return mask.sum(1) - 1


def _reduced(
    value: Float[Tensor, "B S d"],
    counted: Bool[Tensor, "B S"],
    mask: Bool[Tensor, "B S"],
    tokens: Tokens,
) -> Float[Tensor, "B d"]:
    if tokens == "last":
        return value[torch.arange(len(value), device=value.device), _last(mask)]
    if tokens == "mean":
        kept = value.masked_fill(~counted[..., None], 0.0)
        return kept.sum(1) / counted.sum(1, keepdim=True)
    return value.masked_fill(~counted[..., None], -torch.inf).amax(1)


def _reduced_codes(
    codes: SparseCodes, counted: Bool[Tensor, "B S"], tokens: Tokens
) -> Float[Tensor, "B F"]:
    """Largest or mean activations over the counted tokens, without a dense [B, S, F]."""
    rows, length = counted.shape
    values = codes.values.float() * counted.flatten()[:, None]
    row = torch.arange(rows, device=counted.device).repeat_interleave(length)
    where = row[:, None] * codes.num_features + codes.indices
    out = torch.zeros(rows * codes.num_features, device=counted.device)
    how = "amax" if tokens == "max" else "sum"
    out = out.scatter_reduce(0, where.flatten(), values.flatten(), how)
    out = out.reshape(rows, codes.num_features)
    return out / counted.sum(1, keepdim=True) if tokens == "mean" else out
