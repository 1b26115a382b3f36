"""Generation under interventions: the same edits with a cache and without one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import InterventionError, PromptError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.prompts import Batch, Prompts, as_batch, find_span
from pellucid.interventions.receipts import Receipt
from pellucid.interventions.run import edit
from pellucid.interventions.spec import Intervention
from pellucid.models.model import LanguageModel

Mode = Literal["live", "prefill", "before_query"]
_REFUSED = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What a model wrote under interventions.

    Attributes:
        tokens: the new ids of each row, up to its end-of-sequence token, which is left out.
        texts: the same as text; empty without a tokenizer.
        batch: the prompts as they were run.
        receipt: what was edited.
        logits: with `keep_logits`, those that each new token was drawn from, before any sampling.
    """

    tokens: list[list[int]]
    texts: list[str]
    batch: Batch
    receipt: Receipt
    logits: Float[Tensor, "B T V"] | None


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Prompts,
    interventions: Sequence[Intervention] = (),
    *,
    max_new_tokens: int,
    dictionaries: DictionarySet | None = None,
    mode: Mode = "live",
    query: str | int | None = None,
    seed: int | None = None,
    keep_logits: bool = False,
    **options: Any,
) -> Generation:
    """Continue prompts under interventions.

    Args:
        model: the model.
        prompts: texts, ids row by row, or a tensor of ids; padded on the left.
        interventions: the edits; positions are absolute, so that the result does not depend on
            the cache, the padding or how the prompt is read.
        max_new_tokens: the most tokens to write.
        dictionaries: of the features that the edits name.
        mode: `live`: edits act on the prompt and on generated tokens, as their where-clauses say.
            `prefill`: on the prompt alone. `before_query`: on the tokens before the query alone;
            later tokens see them only through the cache.
        query: where the query begins: its text (the last occurrence) or its absolute position.
        seed: of sampling (`do_sample=True`); the global generators are left as they were.
        keep_logits: keep the logits of every new token.
        **options: of `transformers`' generate, such as `do_sample`, `num_beams`, `use_cache`.

    Raises:
        SiteError: a place that the model does not have.
        InterventionError: an intervention is malformed, contradicts another or edited nothing, or
            the way of decoding cannot be edited.
        PromptError: a prompt that the model cannot be asked, or too long with what is to come.
    """
    batch = as_batch(model, prompts)
    _check(model, interventions, batch, max_new_tokens, options)
    until = _limits(model, batch, mode, query)
    settings = {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "pad_token_id": next(
            (x for x in (model.special_tokens.pad, model.special_tokens.eos) if x is not None), 0
        ),
    }
    with (
        edit(
            model,
            interventions,
            dictionaries=dictionaries,
            batch=batch,
            new_tokens=max_new_tokens,
            until=until,
        ) as receipt,
        _seeded(seed),
    ):
        output = model.module.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            return_dict_in_generate=True,
            output_logits=keep_logits,
            **(settings | options),
        )
    new = output.sequences[:, batch.ids.shape[1] :]
    ends = _ends(model, options.get("eos_token_id"))
    tokens = [_until_end(row, ends) for row in new.tolist()]
    tokenizer = model.tokenizer
    return Generation(
        tokens=tokens,
        texts=[] if tokenizer is None else [tokenizer.decode(row) for row in tokens],
        batch=batch,
        receipt=receipt,
        logits=torch.stack(output.logits, dim=1) if keep_logits else None,
    )


def _check(
    model: LanguageModel,
    interventions: Sequence[Intervention],
    batch: Batch,
    max_new_tokens: int,
    options: dict[str, Any],
) -> None:
    for name in _REFUSED:
        if options.get(name) is not None:
            raise InterventionError(
                f"{name} drafts tokens and takes some back, which edits cannot follow; generate "
                "without it"
            )
    if max_new_tokens < 1:
        raise PromptError(f"max_new_tokens is {max_new_tokens}; ask for at least one")
    whole = batch.ids.shape[1] + max_new_tokens
    if whole > model.context_length:
        raise PromptError(
            f"the prompt has {batch.ids.shape[1]} tokens and {max_new_tokens} are to come; the "
            f"model reads at most {model.context_length}; ask for fewer"
        )
    beams = int(options.get("num_beams") or 1)
    running = [each.gate for each in interventions if each.gate and each.gate.reduce != "here"]
    if beams > 1 and any(gate.over.everywhere or gate.over.generated for gate in running):
        raise InterventionError(
            "a gate with a running reduction over generated tokens cannot follow beams that are "
            "reordered; let it count prompt tokens only, or sample without beams"
        )


def _limits(
    model: LanguageModel, batch: Batch, mode: Mode, query: str | int | None
) -> list[int] | None:
    """For each row the first position that may not be edited."""
    if mode not in get_args(Mode):
        raise InterventionError(f"unknown mode {mode!r}; use one of {', '.join(get_args(Mode))}")
    if (query is not None) != (mode == "before_query"):
        raise InterventionError(
            f"mode is {mode!r} and query is {query!r}; the mode 'before_query', and no other, "
            "needs to know where the query begins"
        )
    if query is None:
        return None if mode == "live" else batch.lengths
    return [_query_start(model, batch, row, query) for row in range(len(batch))]


def _query_start(model: LanguageModel, batch: Batch, row: int, query: str | int) -> int:
    length = batch.lengths[row]
    if isinstance(query, str):
        found = find_span(model, batch.row(row), query)
        if not found:
            raise InterventionError(
                f"the query {query!r} does not occur in row {row}; copy it as the prompt has it"
            )
        return found[-1][0]
    start = query + length if query < 0 else query
    if not 0 < start < length:
        raise InterventionError(
            f"the query begins at {query} of a prompt of {length} tokens; give 1 to {length - 1}"
        )
    return start


def _ends(model: LanguageModel, given: int | list[int] | None) -> set[int | None]:
    """The ids that end a sequence: those given to generate, else the model's."""
    if given is not None:
        return {*given} if isinstance(given, list) else {given}
    own = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    return {*(own if isinstance(own, list) else [own]), model.special_tokens.eos}


def _until_end(row: list[int], ends: set[int | None]) -> list[int]:
    stop = next((number for number, each in enumerate(row) if each in ends), len(row))
    return row[:stop]


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw from a generator of its own, leaving the global ones as they were."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
