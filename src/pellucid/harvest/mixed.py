"""Several texts read as one, each with its share."""

import logging
import math
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import final

from pellucid.core.errors import ConfigError, DataError
from pellucid.harvest.text import Split, TextSource

logger = logging.getLogger(__name__)


@final
class MixedText(TextSource):
    """Documents of several sources, each giving its share of the characters.

    The next document is always of the source that is furthest behind its share (the first of
    equals; every document counts one character more than it has). So what is read is the same every
    time, and at any moment a source is at most one document of any source away from its share.
    Shares are of characters because documents differ in length, between sources most of all, and a
    text's tokens are near proportional to its characters. A source that ends is read again from its
    beginning, with a warning; the mixture has no end.

    Args:
        sources: at least two.
        weights: positive, of any sum.

    Raises:
        ConfigError: the weights do not fit the sources.
    """

    def __init__(self, sources: Sequence[TextSource], weights: Sequence[float]) -> None:
        if len(sources) < 2 or len(sources) != len(weights):
            raise ConfigError(
                f"{len(sources)} sources and {len(weights)} weights do not make a mixture; give "
                "two sources or more, and a weight for each"
            )
        for source, weight in zip(sources, weights, strict=True):
            if not 0 < weight < math.inf:
                raise ConfigError(
                    f"the weight of {source.name} is {weight}; give a positive number"
                )
        total = sum(weights)
        self._sources = list(sources)
        self._shares = [weight / total for weight in weights]
        self._told: set[int] = set()
        self.name = " + ".join(
            f"{source.name}={share:.3g}"
            for source, share in zip(sources, self._shares, strict=True)
        )
        parts = [
            f"{source.fingerprint}={share!r}"
            for source, share in zip(sources, self._shares, strict=True)
        ]
        self.fingerprint = sha256("\n".join(parts).encode()).hexdigest()[:16]

    def documents(self, start: int = 0) -> Iterator[str]:
        """See `TextSource.documents`; never ends, and reads what comes before `start` again.

        Raises:
            DataError: a source cannot be read, or is blank.
        """
        readers = [self._endless(number) for number in range(len(self._sources))]
        given = [0.0] * len(readers)
        number = 0
        while True:
            behind = min(range(len(readers)), key=lambda each: given[each] / self._shares[each])
            text = next(readers[behind])
            given[behind] += len(text) + 1
            if number >= start:
                yield text
            number += 1

    def split(self, split: Split) -> TextSource:
        """The same mixture of the sources' own splits."""
        parts = [source.split(split) for source in self._sources]
        if all(part is source for part, source in zip(parts, self._sources, strict=True)):
            return self
        return MixedText(parts, self._shares)

    def _endless(self, number: int) -> Iterator[str]:
        source = self._sources[number]
        while True:
            blank = True
            for text in source.documents():
                blank = blank and not text.strip()
                yield text
            if blank:
                raise DataError(f"{source.name} holds no text; give text to read, or leave it out")
            if number not in self._told:
                self._told.add(number)
                logger.warning("the text of %s is at its end: it is read again", source.name)
