"""Tokens of a model one by one, with the logits that each was drawn from."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import PromptError
from pellucid.models.cache_name import cache_name
from pellucid.models.model import LanguageModel


class Token(NamedTuple):
    """One token as it was written: its id, and the logits [V] that it was drawn from."""

    id: int
    logits: Float[Tensor, " V"]


def prompt_ids(model: LanguageModel, prompt: str | Sequence[int]) -> list[int]:
    """The ids of a prompt under the prompt policy.

    Args:
        model: that is asked.
        prompt: text or ids.

    Raises:
        PromptError: it is empty, too long or has an unknown word.
    """
    whole = model.encode(prompt) if isinstance(prompt, str) else model.encode_ids(prompt)
    return [int(each) for each in whole.tolist()]


def stream(
    model: LanguageModel,
    ids: Sequence[int],
    *,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[Token]:
    """Write tokens after a prompt, keys and values cached, until the end token or the limit.

    The end token itself is not given out. Greedy tokens are those of `interventions.generate`.

    Args:
        model: the model.
        ids: of the prompt, special first token included.
        max_new_tokens: the most tokens; what the context leaves if None.
        temperature: 0 for greedy.
        seed: of sampling; no global generator is touched.

    Raises:
        PromptError: the limit is below 1, or the context is full.
    """
    room = model.context_length - len(ids)
    limit = room if max_new_tokens is None else max_new_tokens
    if limit < 1 or room < 1:
        raise PromptError(
            f"there are {room} tokens of room after the prompt and {limit} are asked for; shorten "
            "the prompt or ask for at least one"
        )
    generator = torch.Generator().manual_seed(seed)
    now: Tensor = torch.tensor([list(ids)], device=model.device)
    name, cache = cache_name(model.module), None
    ends = _ends(model)
    for _ in range(min(limit, room)):
        with torch.no_grad():
            output = model.module(input_ids=now, use_cache=True, **{name: cache})
        logits, cache = output.logits[0, -1], output[name]
        chosen = _draw(logits, temperature, generator)
        if chosen in ends:
            return
        yield Token(chosen, logits)
        now = torch.tensor([[chosen]], device=model.device)


def _draw(logits: Float[Tensor, " V"], temperature: float, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(logits.argmax())
    shares = (logits.float() / temperature).softmax(-1).cpu()
    return int(torch.multinomial(shares, 1, generator=generator))


def _ends(model: LanguageModel) -> frozenset[int]:
    own = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
    named = own if isinstance(own, list) else [own]
    return frozenset(each for each in (*named, model.special_tokens.eos) if each is not None)
