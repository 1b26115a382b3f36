"""Where text comes from: numbered documents, some of them held out of training."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Literal, final, get_args

from pellucid.core.errors import ConfigError, DataError
from pellucid.specimen import mixture

Split = Literal["train", "heldout"]
HELD_OUT_EVERY = 20
"""One document in this many is held out of training."""


class TextSource(ABC):
    """Documents numbered from 0, in the same order at every reading.

    Attributes:
        name: what the user called it, for messages and manifests.
        fingerprint: changes when the text does; a run resumes only on the same text.
        has_fields: whether documents are one of several fields.
    """

    name: str
    fingerprint: str
    has_fields: bool = False

    @abstractmethod
    def documents(self, start: int = 0) -> Iterator[str]:
        """Documents `start`, `start + 1` and so on, until the text ends.

        Raises:
            DataError: the text cannot be read.
        """

    def split(self, split: Split) -> "TextSource":
        """The documents to train on, or those held out: one in `HELD_OUT_EVERY`.

        A source of fewer documents than that is too short to hold any out: both splits are the
        source itself, and their equal fingerprints tell.

        Raises:
            ConfigError: no such split.
        """
        _check_split(split)
        if next(self.documents(HELD_OUT_EVERY - 1), None) is None:
            return self
        return _SplitText(self, split)


@final
class SpecimenText(TextSource):
    """The specimen's endless procedural corpus.

    Its two splits differ in content too: places, expressions and requests that training never
    shows (see `docs/specimen.md`).
    """

    def __init__(self, *, seed: int = 0, split: Split = "train") -> None:
        self.name = "specimen"
        self.fingerprint = f"specimen-{split}-{seed}"
        self._seed, self._split = seed, split

    def documents(self, start: int = 0) -> Iterator[str]:
        """See `TextSource.documents`; never ends."""
        number = start
        while True:
            yield mixture.document(self._seed, number, split=self._split).text
            number += 1

    def split(self, split: Split) -> "SpecimenText":
        """The corpus's own split of that name."""
        _check_split(split)
        return SpecimenText(seed=self._seed, split=split)


@final
class TextList(TextSource):
    """Documents held in memory.

    Raises:
        DataError: there are none, or one is not a string.
    """

    def __init__(self, documents: Sequence[str], *, name: str = "a list of texts") -> None:
        if isinstance(documents, str) or not documents:
            raise DataError(f"{name} holds no documents; give a non-empty list of strings")
        self.name = name
        self._documents = list(documents)
        digest = sha256()
        for number, text in enumerate(self._documents):
            if not isinstance(text, str):
                raise DataError(
                    f"document {number} of {name} is a {type(text).__name__}; give strings"
                )
            digest.update(f"{len(text)}:{text}".encode())
        self.fingerprint = digest.hexdigest()[:16]

    def documents(self, start: int = 0) -> Iterator[str]:
        """See `TextSource.documents`."""
        return islice(self._documents, start, None)


@final
class _SplitText(TextSource):
    """One split of a source by document number."""

    def __init__(self, source: TextSource, split: Split) -> None:
        self.name = source.name
        self.fingerprint = f"{source.fingerprint}-{split}"
        self._source, self._held_out = source, split == "heldout"

    def documents(self, start: int = 0) -> Iterator[str]:
        """See `TextSource.documents`; numbered within the split."""
        if self._held_out:
            yield from islice(
                self._source.documents(start * HELD_OUT_EVERY + HELD_OUT_EVERY - 1),
                None,
                None,
                HELD_OUT_EVERY,
            )
            return
        first = start + start // (HELD_OUT_EVERY - 1)
        for number, text in enumerate(self._source.documents(first), first):
            if number % HELD_OUT_EVERY != HELD_OUT_EVERY - 1:
                yield text


def _check_split(split: str) -> None:
    if split not in get_args(Split):
        raise ConfigError(f"unknown split {split!r}; use one of {', '.join(get_args(Split))}")
