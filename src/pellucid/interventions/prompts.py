"""Several prompts as one batch, and where texts occur in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pellucid.core.errors import PromptError
from pellucid.models.model import LanguageModel


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Prompts padded to one length, perhaps with a continuation that is already written.

    Attributes:
        ids: token ids.
        mask: True at real tokens.
        prompted: how many tokens of each row are its prompt; what follows counts as generated,
            so that edits act on it as they would while it is written. None: all of them.
    """

    ids: Int[Tensor, "B S"]
    mask: Bool[Tensor, "B S"]
    prompted: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Real tokens of each row."""
        counts: list[int] = self.mask.sum(dim=1).tolist()
        return counts

    @property
    def prompt_lengths(self) -> list[int]:
        """Prompt tokens of each row."""
        return self.lengths if self.prompted is None else list(self.prompted)

    @property
    def positions(self) -> Int[Tensor, "B S"]:
        """Absolute positions, -1 at padding."""
        counted = self.mask.long().cumsum(dim=1) - 1
        return counted.masked_fill(~self.mask, -1)

    def row(self, number: int) -> list[int]:
        """The real ids of a row."""
        ids: list[int] = self.ids[number][self.mask[number]].tolist()
        return ids


Prompts = Sequence[str] | Sequence[Sequence[int]] | Int[Tensor, "B S"] | Batch
"""Texts, or token ids row by row, or a whole tensor of them, or a batch."""


def as_batch(
    model: LanguageModel,
    prompts: Prompts,
    mask: Bool[Tensor, "B S"] | None = None,
    *,
    left: bool = True,
) -> Batch:
    """Prompts as a batch.

    Texts and lists of ids get the prompt policy of `models.prompt`; a tensor and a batch are taken
    as they are.

    Args:
        model: whose tokenizer and checks are used.
        prompts: at least one.
        mask: with a tensor of ids, True at real tokens; None when nothing is padded.
        left: pad on the left, as generation needs.

    Raises:
        PromptError: no prompts, or one that the model cannot be asked.
    """
    if isinstance(prompts, Batch):
        return prompts
    if isinstance(prompts, Tensor):
        if prompts.ndim != 2 or not len(prompts):
            raise PromptError(
                f"the ids have shape {tuple(prompts.shape)}; give a tensor [rows, tokens]"
            )
        real = torch.ones_like(prompts, dtype=torch.bool) if mask is None else mask.bool()
        if real.shape != prompts.shape or not bool(real.any(dim=1).all()):
            raise PromptError(
                f"the mask has shape {tuple(real.shape)} for ids of shape {tuple(prompts.shape)}, "
                "or a row without a real token; give True at the real tokens of every row"
            )
        return Batch(prompts.to(model.device), real.to(model.device))
    if isinstance(prompts, str):
        raise PromptError(f"prompts is one text ({prompts[:40]!r}); give a list of texts")
    rows = [
        model.encode(each) if isinstance(each, str) else model.encode_ids(each) for each in prompts
    ]
    if not rows:
        raise PromptError("there is no prompt; give at least one")
    return pad(model, rows, left=left)


def pad(model: LanguageModel, rows: Sequence[Int[Tensor, " S"]], *, left: bool = True) -> Batch:
    """Rows of ids padded to the longest.

    Args:
        model: whose padding token is used, or any other that it has.
        rows: ids.
        left: pad on the left.
    """
    special = model.special_tokens
    filler = next((each for each in (special.pad, special.eos, special.bos) if each is not None), 0)
    side = "left" if left else "right"
    padded = torch.nn.utils.rnn.pad_sequence
    ids = padded(list(rows), batch_first=True, padding_value=filler, padding_side=side)
    real = [torch.ones_like(row, dtype=torch.bool) for row in rows]
    mask = padded(real, batch_first=True, padding_value=False, padding_side=side)
    return Batch(ids.to(model.device), mask.to(model.device))


def find_span(model: LanguageModel, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """Where a text occurs in a prompt, as half-open token positions, in order.

    A token belongs to an occurrence when any of its characters does.

    Args:
        model: whose tokenizer made the ids.
        ids: of the prompt.
        text: looked for, exactly.

    Raises:
        PromptError: the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise PromptError(
            f"the span {text!r} needs a tokenizer, which the model was loaded without; give "
            "positions, or load the model with one"
        )
    ends = _ends(model, ids)
    whole = model.tokenizer.decode(list(ids))
    found: list[tuple[int, int]] = []
    start = whole.find(text)
    while start >= 0:
        stop = start + len(text)
        inside = [
            number
            for number, (begin, end) in enumerate(zip([0, *ends], ends, strict=False))
            if begin < stop and end > start and whole[max(begin, start) : min(end, stop)].strip()
        ]
        if inside:
            found.append((inside[0], inside[-1] + 1))
        start = whole.find(text, start + 1)
    return found


def _ends(model: LanguageModel, ids: Sequence[int]) -> list[int]:
    """Where each token's text ends in the decoded whole: what longer prefixes decode to."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    text = tokenizer.decode(list(ids))
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False
    )
    if tokenizer.is_fast and list(encoded["input_ids"]) == list(ids):
        return [end for _, end in encoded["offset_mapping"]]
    return [len(tokenizer.decode(list(ids[: number + 1]))) for number in range(len(ids))]
