"""What can be read of a step's text alone: its words, and what stands in the part that it rewrote.

Nothing is computed: an expression that is evaluated is the label itself. A learner may find out
which products come out wrong by having seen them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pellucid.verification.chains.alignment import align
from pellucid.verification.methods.features import Features
from pellucid.verification.methods.logistic import Matrix
from pellucid.verification.methods.training import fitted
from pellucid.verification.steps.step_set import StepSet

WORD = r"\S+"
"""A token, as far as a text is concerned: what white space separates."""
LONGEST = 8
"""Of longer rewritten parts only the words at either end are told apart."""


@final
@dataclass(slots=True, eq=False)
class Words(Features):
    """Counts or TF-IDF weights of n-grams of words, of the text before and of the step apart.

    Attributes:
        longest: n-grams have 1 to so many words.
        weighted: TF-IDF with sublinear counts and rows of length 1; plain counts otherwise.
    """

    longest: int = 3
    weighted: bool = True
    _readers: dict[str, Any] | None = None

    def fit(self, steps: StepSet) -> None:
        """Learn the vocabulary, and how rare each n-gram is."""
        from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

        settings = {"token_pattern": WORD, "ngram_range": (1, self.longest), "min_df": 2}
        make = TfidfVectorizer if self.weighted else CountVectorizer
        extra = {"sublinear_tf": True} if self.weighted else {}
        self._readers = {}
        for name in ("before", "text"):
            reader = make(**settings, **extra, dtype=np.float64)
            try:
                self._readers[name] = reader.fit(_texts(steps, name))
            except ValueError:  # no word stands in two texts
                continue

    def matrix(self, steps: StepSet) -> Matrix:
        """Sparse [N, n-grams of `before`, then of `text`]."""
        from scipy.sparse import csr_matrix, hstack

        readers = fitted(self._readers, "a vocabulary")
        parts = [reader.transform(_texts(steps, name)) for name, reader in readers.items()]
        return hstack([*parts, csr_matrix((len(steps), 1))], format="csr")


@final
@dataclass(slots=True, eq=False)
class Structure(Features):
    """Which operator and operands stand in the part that the step rewrote, and around it.

    The part is found by comparing the two texts (`chains.alignment.align`). Words and their
    combinations are indicators; lengths, places, depth and the size of numbers are numbers.
    """

    _reader: Any = None

    def fit(self, steps: StepSet) -> None:
        """Learn which indicators there are."""
        from sklearn.feature_extraction import DictVectorizer

        self._reader = DictVectorizer(dtype=np.float64).fit(_described(steps))

    def matrix(self, steps: StepSet) -> Matrix:
        """Sparse [N, indicators and numbers]."""
        return fitted(self._reader, "a vocabulary").transform(_described(steps)).tocsr()


def describe(before: Sequence[str], after: Sequence[str]) -> dict[str, float | str]:
    """What `Structure` reads of one step.

    Args:
        before: words of what it rewrites.
        after: words of the step.
    """
    rewriting = align(before, after)
    old, new = before[slice(*rewriting.before)], after[slice(*rewriting.after)]
    head, tail = rewriting.before
    found: dict[str, float | str] = {
        "words before": len(before),
        "words after": len(after),
        "old words": len(old),
        "new words": len(new),
        "place": head,
        "place from end": len(before) - tail,
        "depth": sum({"(": 1, ")": -1}.get(each, 0) for each in before[:head]),
    }
    found |= _numbers("old", old) | _numbers("new", new)
    for name, part in (("old", old), ("new", new)):
        found |= {f"{name} has {each}": 1 for each in part[:LONGEST]}
        found |= {f"{name} {n}": each for n, each in enumerate(part[:LONGEST])}
        found |= {f"{name} -{n}": each for n, each in enumerate(reversed(part[-LONGEST:]), 1)}
    for n in (1, 2):
        found[f"left {n}"] = before[head - n] if head >= n else ""
        found[f"right {n}"] = before[tail + n - 1] if tail + n <= len(before) else ""
    if len(old) <= LONGEST and len(new) <= LONGEST:
        was, now = " ".join(old), " ".join(new)
        found |= {"old": was, "new": now, "old and new": f"{was} > {now}"}
        found["in context"] = f"{found['left 1']} {was} {found['right 1']}"
    return found


def _numbers(name: str, words: Sequence[str]) -> dict[str, float]:
    values = [value for each in words[:LONGEST] if (value := _number(each)) is not None]
    found = {f"{name} number {n}": value for n, value in enumerate(values[:3])}
    return found | {f"{name} size {n}": abs(value) for n, value in enumerate(values[:3])}


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if abs(value) < 1e6 else None


def _texts(steps: StepSet, name: str) -> Iterable[str]:
    return [str(each) for each in steps.columns[name]]


def _described(steps: StepSet) -> Iterator[dict[str, float | str]]:
    for before, after in zip(_texts(steps, "before"), _texts(steps, "text"), strict=True):
        yield describe(before.split() or [""], after.split() or [""])
