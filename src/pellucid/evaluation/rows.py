"""The text of an evaluation: rows drawn once, read in batches as often as needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pellucid.core.types import AnySite
from pellucid.harvest.activations import ActivationBatch
from pellucid.harvest.rows import Row, TokenRows, padded_batches
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel

LONGEST_ROW = 512
_LOGITS_AT_ONCE = 1 << 25
_POSITIONS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentBatch:
    """Rows of similar length, padded on the right. B rows, S positions.

    Attributes:
        ids: token ids.
        mask: True at real tokens.
        text: True at tokens of the text, not special ones: where dictionaries are measured.
        document: each row's document, numbered from 0 among those drawn.
    """

    ids: Int[Tensor, "B S"]
    mask: Bool[Tensor, "B S"]
    text: Bool[Tensor, "B S"]
    document: Int[Tensor, " B"]

    @property
    def scored(self) -> Bool[Tensor, "B S-1"]:
        """True at the positions whose next token is text: those whose prediction is scored."""
        return self.text[:, 1:]


class EvaluationRows:
    """Rows from the beginning of a text until they hold `tokens` tokens of it, or it ends.

    Args:
        source: the text.
        model: its tokenizer cuts the rows, at most `LONGEST_ROW` tokens each.
        tokens: how many tokens to draw, special ones not counted; the last row is drawn whole.

    Attributes:
        documents: how many documents the rows came from.
        tokens: how many tokens of text they hold.

    Raises:
        DataError: the text cannot be read, or has no usable token.
    """

    def __init__(self, source: TextSource, model: LanguageModel, *, tokens: int) -> None:
        drawn: list[tuple[Row, int]] = []
        self.tokens = 0
        stream = TokenRows(source, model, length=min(LONGEST_ROW, model.context_length))
        while self.tokens < tokens:
            row = next(stream)
            after = stream.position
            if after.reading > 0:
                break
            drawn.append((row, after.document - (after.token == 0)))
            self.tokens += len(row.text)
        drawn.sort(key=lambda pair: len(pair[0].ids))
        numbers = {document: n for n, document in enumerate(sorted({d for _, d in drawn}))}
        self.documents = len(numbers)
        self._model = model
        self._rows = [row for row, _ in drawn]
        self._documents = torch.tensor([numbers[document] for _, document in drawn])

    def batches(self) -> Iterator[DocumentBatch]:
        """Every row once, the shortest first; a batch's logits fill a bounded memory."""
        device = self._model.device
        at_once = min(_POSITIONS_AT_ONCE, _LOGITS_AT_ONCE // self._model.vocab_size)
        start = 0
        for batch in padded_batches(self._rows, max_tokens=at_once):
            yield DocumentBatch(
                ids=batch.ids.to(device),
                mask=batch.mask.to(device),
                text=batch.text.to(device),
                document=self._documents[start : start + len(batch.ids)],
            )
            start += len(batch.ids)

    @torch.no_grad()
    def activations(self, sites: Sequence[AnySite]) -> Iterator[ActivationBatch]:
        """The unmodified model's activations at every text token, in the order of `batches`."""
        for batch in self.batches():
            values = self._model.activations(batch.ids, sites, batch.mask)
            yield ActivationBatch(
                {site: value[batch.text].float() for site, value in values.items()},
                batch.ids[batch.text],
            )
