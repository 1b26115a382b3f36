"""How text becomes the tokens a model sees.

The policy, the same for every family and for attribution, training and evaluation:

- The tokenizer adds nothing of its own. If the first token is not special, one token is put before
  it: bos, else pad, else eos, whichever the tokenizer has first. A model without any of them gets
  the tokens as they are. (This is circuit-tracer's rule, so graphs can be compared.)
- A prompt must hold at least one token besides that one, and fit the context.
- Padding may be on the left or on the right: `position_ids` counts real tokens only, so a row's
  logits at its real tokens are those of the row alone. (Not on the left in float64, where
  transformers itself gives NaN: its attention mask overflows in a float32 softmax.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pellucid.core.errors import PromptError


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids with a meaning of their own, None where the model has none.

    Attributes:
        bos, eos, pad: begin of sequence, end of sequence, padding.
        unknown: stands for every word outside the vocabulary.
        others: further special ids, such as those of a chat template.
    """

    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    unknown: int | None = None
    others: frozenset[int] = frozenset()

    @property
    def first(self) -> int | None:
        """The id that begins a prompt: bos, else pad, else eos."""
        return next((each for each in (self.bos, self.pad, self.eos) if each is not None), None)

    @property
    def structural(self) -> frozenset[int]:
        """Bos, eos and pad: the ids that are kept out of training and statistics."""
        return frozenset(each for each in (self.bos, self.eos, self.pad) if each is not None)

    def with_first(self, ids: Sequence[int]) -> list[int]:
        """`ids`, begun with a special token if they are not already."""
        whole = list(ids)
        if self.first is None or (whole and whole[0] in self.structural | self.others):
            return whole
        return [self.first, *whole]


def special_tokens(tokenizer: PreTrainedTokenizerBase | None, config: Any) -> SpecialTokens:
    """The special tokens of a tokenizer, or without one those that the configuration names."""
    if tokenizer is not None:
        unknown = tokenizer.unk_token_id
        return SpecialTokens(
            bos=tokenizer.bos_token_id,
            eos=tokenizer.eos_token_id,
            pad=tokenizer.pad_token_id,
            unknown=unknown,
            others=frozenset(tokenizer.all_special_ids) - {unknown},
        )

    def from_config(name: str) -> int | None:
        value = getattr(config, name, None)  # several ids may end a sequence
        first = value[0] if isinstance(value, list) and value else value
        return first if isinstance(first, int) else None

    return SpecialTokens(
        bos=from_config("bos_token_id"),
        eos=from_config("eos_token_id"),
        pad=from_config("pad_token_id"),
    )


def tokenize(text: str, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """The ids of `text`, nothing added.

    Raises:
        PromptError: there is no tokenizer, or it refuses the text.
    """
    if tokenizer is None:
        raise PromptError(
            f"the text {_shown(text)} cannot be tokenized, because the model was loaded without a "
            "tokenizer; give token ids, or load the model with one"
        )
    try:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    except Exception as error:  # tokenizers raises bare Exception
        raise PromptError(
            f"the tokenizer refuses {_shown(text)} ({error}); change the text or give token ids"
        ) from error


def check_prompt(
    ids: Sequence[int], special: SpecialTokens, *, vocab_size: int, context_length: int
) -> None:
    """Refuse a prompt that the model cannot be asked.

    Raises:
        PromptError: an id is outside the vocabulary, nothing is there but special tokens, or the
            prompt is longer than the context.
    """
    for each in ids:
        if not 0 <= each < vocab_size:
            raise PromptError(
                f"token id {each} is outside the vocabulary; use 0 to {vocab_size - 1}"
            )
    if not set(ids) - special.structural:
        raise PromptError("the prompt is empty; give at least one word")
    if len(ids) > context_length:
        raise PromptError(
            f"the prompt has {len(ids)} tokens, the model reads at most {context_length}; "
            "shorten it"
        )


def check_known(text: str, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a prompt with a word that the tokenizer can only call unknown.

    Raises:
        PromptError: with the word, where it can be told.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in ids or tokenizer.unk_token in text:
        return
    strange = [
        word
        for word in text.split()
        if unknown in tokenizer(word, add_special_tokens=False)["input_ids"]
    ]
    what = f"the word {_shown(strange[0])}" if strange else f"part of {_shown(text)}"
    raise PromptError(f"{what} is not in the model's vocabulary; use words that it knows")


def special_token_mask(
    ids: Int[Tensor, "*shape"], special: SpecialTokens
) -> Bool[Tensor, "*shape"]:
    """Where `ids` holds bos, eos or pad."""
    structural = torch.tensor(sorted(special.structural), dtype=ids.dtype, device=ids.device)
    return torch.isin(ids, structural)


def position_ids(mask: Int[Tensor, "B S"] | Bool[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Each real token's position among the real tokens of its row (0 at padding on the left)."""
    return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def _shown(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")
