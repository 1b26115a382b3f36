"""Rows of token ids cut from documents: one piece of one document a row, or several packed.

By default (`packing="documents"`) a row begins, and for an encoder also ends, with the special
tokens that the model expects, and holds text of one document only: what the model computes on it is
what it computes on a prompt. Rows of a batch are padded on the right.

Packed rows (`packing="packed"`) are full: every document, or what is left of it, opens with the
token that begins a prompt and closes with the token that ends a text, as in a model's own training,
and the next one follows in the same row. Attention crosses documents there.

A document longer than a row goes on in the next one; no token of it is lost. Special and padding
positions never become activations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pellucid.core.errors import ConfigError, DataError
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel

Packing = Literal["documents", "packed"]

_DOCUMENTS_AT_ONCE = 64
_PROBED_ROWS = 256
_MOST_PADDING = 128
"""Padding that rows may cost to share a pass (measured: `docs/log.md`, padding)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPosition:
    """Where the next row comes from: a token of a document in one reading of the text."""

    reading: int = 0
    document: int = 0
    token: int = 0

    def to_json(self) -> dict[str, int]:
        """Its plain form."""
        return asdict(self)


class Frame(NamedTuple):
    """The special tokens around every row's text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


class Row(NamedTuple):
    """One row, and the positions of it that hold text rather than special tokens."""

    ids: list[int]
    text: list[int]


class RowBatch(NamedTuple):
    """Rows padded on the right to one length.

    Attributes:
        ids: tokens, 0 at padding.
        mask: true where a row has a token.
        text: true where it has a token of its `Row.text`.
    """

    ids: Int[Tensor, "B S"]
    mask: Bool[Tensor, "B S"]
    text: Bool[Tensor, "B S"]


class TokenRows:
    """An endless iterator of rows; a text that ends is read again from its beginning.

    Args:
        source: the documents.
        model: its tokenizer and special tokens.
        length: most tokens a row, special tokens included; at most the model's context.
        packing: one document a row, or rows filled with several.

    Attributes:
        position: where the next row comes from; assign it to go elsewhere.
        tokens_a_reading: how many text tokens the source has, once it has been read to its end.

    Raises:
        ConfigError: `length` or `packing` does not fit the model.
        DataError: the text has no token that the model could learn from.
    """

    def __init__(
        self,
        source: TextSource,
        model: LanguageModel,
        *,
        length: int,
        packing: Packing = "documents",
    ) -> None:
        if model.tokenizer is None:
            raise ConfigError("the model has no tokenizer to read text with; load it with one")
        self._tokenizer: PreTrainedTokenizerBase = model.tokenizer
        self._frame = packed_frame(model) if packing == "packed" else row_frame(model)
        self._cut = self._packed if packing == "packed" else self._pieces
        self._text_length = length - len(self._frame.before) - len(self._frame.after)
        if self._text_length < 1 or length > model.context_length:
            raise ConfigError(
                f"rows of {length} tokens do not fit the model; use a length up to its context of "
                f"{model.context_length}"
            )
        self.source, self.name = source, source.name
        self.length = length
        self.tokens_a_reading: int | None = None
        self._special = model.special_tokens.structural.union(*self._frame)
        self._check_usable(model)
        self.position = TextPosition()

    @property
    def position(self) -> TextPosition:
        """Where the next row comes from."""
        return self._position

    @position.setter
    def position(self, position: TextPosition) -> None:
        self._position = position
        self._rows = self._endless(position)

    def __iter__(self) -> "TokenRows":
        return self

    def __next__(self) -> Row:
        while (found := next(self._rows)) is None:
            pass
        row, self._position = found
        return row

    def take(self, tokens: int) -> list[Row]:
        """The next rows, holding at least `tokens` tokens of text.

        They are of one reading: where the text ends they hold fewer, and the next call begins with
        its first document.
        """
        rows: list[Row] = []
        missing = tokens
        while missing > 0:
            found = next(self._rows)
            if found is None:
                if missing < tokens:
                    break
                rows = []  # of special tokens alone
                continue
            row, self._position = found
            rows.append(row)
            missing -= len(row.text)
        return rows

    def _endless(self, start: TextPosition) -> Iterator[tuple[Row, TextPosition] | None]:
        """Rows from `start` on, each with the position after it; None where the text ends."""
        while True:
            tokens = 0
            for row, position in self._one_reading(start):
                tokens += len(row.text)
                yield row, position
            if start.document == start.token == 0:
                self.tokens_a_reading = tokens
                if not tokens:
                    raise DataError(f"{self.source.name} holds no text; give text to read")
            yield None
            start = TextPosition(reading=start.reading + 1)

    def _one_reading(self, start: TextPosition) -> Iterator[tuple[Row, TextPosition]]:
        for ids, document, token in self._cut(start):
            text = [place for place, each in enumerate(ids) if each not in self._special]
            following = TextPosition(reading=start.reading, document=document, token=token)
            yield Row(ids, text), following

    def _pieces(self, start: TextPosition) -> Iterator[tuple[list[int], int, int]]:
        """Rows of one document each, with the document and token that follow."""
        before, after = self._frame
        for number, ids in self._tokenized(start.document):
            first = start.token if number == start.document else 0
            for begin in range(first, len(ids), self._text_length):
                end = begin + self._text_length
                row = [*before, *ids[begin:end], *after]
                yield (row, number, end) if end < len(ids) else (row, number + 1, 0)

    def _packed(self, start: TextPosition) -> Iterator[tuple[list[int], int, int]]:
        """Rows filled with documents, with the document and token that follow."""
        before, after = self._frame
        row: list[int] = []
        number = start.document
        for number, ids in self._tokenized(start.document):
            begin = start.token if number == start.document else 0
            while begin < len(ids):
                room = self.length - len(row) - len(before)
                if room < 1:
                    yield row, number, begin
                    row = []
                    continue
                piece = ids[begin : begin + room]
                begin += len(piece)
                row += [*before, *piece]
                if begin == len(ids):
                    row += after[: self.length - len(row)]
        if row:
            yield row, number + 1, 0

    def _tokenized(self, start: int) -> Iterator[tuple[int, list[int]]]:
        """Numbered documents as token ids, without special tokens."""
        documents = self.source.documents(start)
        while texts := list(islice(documents, _DOCUMENTS_AT_ONCE)):
            encoded = self._tokenizer(texts, add_special_tokens=False, verbose=False)
            yield from enumerate(encoded["input_ids"], start)
            start += len(texts)

    def _check_usable(self, model: LanguageModel) -> None:
        """Refuse text of which the first rows hold nothing but special and unknown tokens."""
        unknown = model.special_tokens.unknown
        for row, _ in islice(self._one_reading(TextPosition()), _PROBED_ROWS):
            largest = max(row.ids)
            if largest >= model.vocab_size:
                raise DataError(
                    f"token id {largest} of {self.source.name} is not in the model's vocabulary "
                    f"of {model.vocab_size}; load the tokenizer of this model"
                )
            if any(row.ids[place] != unknown for place in row.text):
                return
        raise DataError(
            f"{self.source.name} has no usable token: its text is blank, or the model's tokenizer "
            "knows none of its words; give text of the kind the model was trained on"
        )


def row_frame(model: LanguageModel) -> Frame:
    """The special tokens that open and close a row of text.

    A model of a known family reads what it reads in a prompt (see `models.prompt`); any other,
    such as an encoder, gets what its tokenizer adds (`[CLS]` and `[SEP]` for BERT).
    """
    if model.spec is not None:
        return Frame(tuple(model.special_tokens.with_first([])), ())
    assert model.tokenizer is not None
    encoded = model.tokenizer("a", return_special_tokens_mask=True)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    text = [index for index, flag in enumerate(special) if not flag]
    if not text:
        return Frame(tuple(ids), ())
    return Frame(tuple(ids[: text[0]]), tuple(ids[text[-1] + 1 :]))


def packed_frame(model: LanguageModel) -> Frame:
    """The special tokens that open and close a document of a packed row.

    It opens as a prompt does, and closes with the token that ends a text, unless that is the same
    one (GPT-2's `<|endoftext|>` stands between two documents once).

    Raises:
        ConfigError: the model is of no known family, such as an encoder.
    """
    if model.spec is None:
        raise ConfigError(
            f"packed rows are for decoders of a known family, {model.name} is of none; use packing "
            "'documents'"
        )
    before = row_frame(model).before
    end = model.special_tokens.eos
    return Frame(before, () if end is None or end in before else (end,))


def padded_batches(rows: Sequence[Row], *, max_tokens: int) -> Iterator[RowBatch]:
    """Rows in batches of similar length, each of at most `max_tokens` positions (or one row).

    The order is by length, ties in the order given: a function of the rows alone. A row that would
    raise a batch's padding past `_MOST_PADDING` positions begins the next one.
    """
    ordered = sorted(rows, key=lambda row: len(row.ids))
    start = held = 0
    for end, row in enumerate(ordered):
        width = len(row.ids)
        positions = (end + 1 - start) * width
        if end > start and (positions > max_tokens or positions - held - width > _MOST_PADDING):
            yield _pad(ordered[start:end])
            start, held = end, 0
        held += width
    if ordered:
        yield _pad(ordered[start:])


def _pad(rows: Sequence[Row]) -> RowBatch:
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
    lengths = torch.tensor([len(row.ids) for row in rows])
    text = torch.zeros(ids.shape, dtype=torch.bool)
    places = [number * width + place for number, row in enumerate(rows) for place in row.text]
    text.view(-1)[places] = True
    return RowBatch(ids, torch.arange(width) < lengths[:, None], text)
