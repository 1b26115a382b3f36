"""Documents packed into sequences of one length."""

from jaxtyping import Int
from torch import Tensor, tensor

from pellucid.specimen import mixture, vocabulary
from pellucid.specimen.labels import Split


class PackedStream:
    """An endless stream of packed sequences whose whole state is the next document's number.

    A sequence begins with a document and is filled with whole documents, `<bos> ... <eos>` each;
    the last one is cut off at the sequence's end, and the next sequence begins with the next
    document, so no token lacks the text that decides it.
    """

    def __init__(
        self, *, seed: int, length: int, split: Split = "train", next_document: int = 0
    ) -> None:
        self.next_document = next_document
        self._seed, self._length, self._split = seed, length, split

    def next_sequence(self) -> list[int]:
        """The next `length` token ids."""
        ids: list[int] = []
        while len(ids) < self._length:
            document = mixture.document(self._seed, self.next_document, split=self._split)
            ids += vocabulary.encode(document)
            self.next_document += 1
        return ids[: self._length]

    def next_batch(self, size: int) -> Int[Tensor, "batch sequence"]:
        """The next `size` sequences."""
        return tensor([self.next_sequence() for _ in range(size)])
