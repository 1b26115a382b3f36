"""A chain with what a data set says of it, wherever the chain comes from."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pellucid.verification.chains.expressions import LANGUAGES, Language
from pellucid.verification.chains.steps import Chain
from pellucid.verification.chains.text_chain import TextChain
from pellucid.verification.chains.writing import WrittenChain


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptChain:
    """One chain of a data set.

    Attributes:
        id: unique in the set.
        source: what wrote it, or the file that it comes from.
        language: arithmetic, boolean or text.
        group: of its question; a group is never in training and in test.
        operators: in the question, 0 where that means nothing.
        chain: as a model wrote it (exact steps), or in free text.
    """

    id: str
    source: str
    language: str
    group: str
    operators: int
    chain: WrittenChain | TextChain

    @property
    def unread(self) -> str | None:
        """Why it has no steps, None if it has."""
        return self.chain.unread

    def with_chain(self, chain: WrittenChain | TextChain) -> "KeptChain":
        """The same entry with another version of its chain."""
        return replace(self, chain=chain)

    def until_error(self) -> "KeptChain":
        """The same entry, its steps cut after the first wrong one (strict truncation)."""
        if isinstance(self.chain, TextChain):
            return self.with_chain(self.chain.until_error())
        if (read := self.chain.chain) is None:
            return self
        short = Chain(read.question, read.until_error(), read.finished)
        return self.with_chain(replace(self.chain, chain=short))

    def labels(self) -> list[bool | None]:
        """Whether each step is right (locally, where that is told apart); None for unknown."""
        if isinstance(self.chain, TextChain):
            return [step.right for step in self.chain.steps]
        return [] if self.chain.chain is None else [step.local for step in self.chain.chain.steps]

    def errors(self) -> list[str]:
        """The kinds of its wrong steps, as far as they are known."""
        if isinstance(self.chain, TextChain) or self.chain.chain is None:
            return []
        return [step.error for step in self.chain.chain.steps if step.error is not None]


def keep_written(
    written: Iterable[WrittenChain],
    questions: Sequence[Sequence[str]],
    *,
    source: str,
    language: str,
) -> list[KeptChain]:
    """Chains that a model wrote, as entries of a data set; grouped by question.

    Args:
        written: one a question, in the order of the questions.
        questions: tokens of each.
        source: what wrote them, such as `plain`.
        language: of the questions.
    """
    return [
        KeptChain(
            id=f"{source}-{number}",
            source=source,
            language=language,
            group=" ".join(question),
            operators=count_operators(LANGUAGES[language], question),
            chain=chain,
        )
        for number, (chain, question) in enumerate(zip(written, map(list, questions), strict=True))
    ]


def count_operators(language: Language, tokens: Sequence[str]) -> int:
    """How many operators an expression has, those of one operand included."""
    return sum(token in language.infix or token in language.prefix for token in tokens)


def summary(chains: Iterable[KeptChain]) -> dict[str, Any]:
    """What a data set holds: chains read and not read with the reasons, steps by label and kind.

    `after_error` counts the steps that come after their chain's first wrong one.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for each in chains:
        counts["chains"] += 1
        if each.unread is not None:
            counts["unread"] += 1
            reasons[_reason(each.unread)] += 1
        labels = each.labels()
        wrong = labels.index(False) if False in labels else len(labels)
        counts["steps"] += len(labels)
        counts["wrong"] += labels.count(False)
        counts["unknown"] += labels.count(None)
        counts["after_error"] += len(labels[wrong + 1 :])
        kinds.update(each.errors())
    names = ("chains", "unread", "steps", "wrong", "unknown", "after_error")
    return {name: counts[name] for name in names} | {
        "reasons": dict(reasons.most_common()),
        "errors": dict(kinds.most_common()),
    }


def _reason(unread: str) -> str:
    """The reason without the text that it quotes, so that equal reasons count together."""
    parts = unread.split("'")
    return "'...'".join(parts[::2]) if len(parts) > 2 else unread
