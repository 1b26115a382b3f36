"""What a copy reads while it learns its rule: the corpus, its chains written by the rule."""

from random import Random

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pellucid.specimen import mixture, vocabulary
from pellucid.specimen.corpora import chains
from pellucid.verification.planted.reasoner import draw_chain
from pellucid.verification.planted.rules import Rule

_OPERATORS = [
    count for count, weight in enumerate(chains.OPERATOR_COUNT_WEIGHTS, 1) for _ in range(weight)
]
"""Numbers of operators, each as often as the specimen's chains have it."""


class Lessons:
    """An endless stream of packed sequences, as the specimen was trained on.

    Documents are chains that follow the rule and documents of the corpus's other tasks.

    Args:
        rule: what is taught.
        seed: of the documents.
        length: tokens of a sequence.
        chain_share: of documents that are chains in the rule's language.
        applied_share: of those chains in which the rule applies at least once.
    """

    def __init__(
        self, rule: Rule, *, seed: int, length: int, chain_share: float, applied_share: float
    ) -> None:
        self._rule, self._seed, self._length = rule, seed, length
        self._chain_share, self._applied_share = chain_share, applied_share
        self._rng = Random(f"lessons {seed}")
        self._next = 0

    def next_batch(
        self, size: int
    ) -> tuple[Int[Tensor, "batch sequence"], Bool[Tensor, "batch sequence"]]:
        """Token ids, and where the token that follows is one of the rule's values.

        Args:
            size: sequences.
        """
        rows = [self._sequence() for _ in range(size)]
        ids = torch.tensor([[token for token, _ in row] for row in rows])
        wrong = torch.tensor([[mark for _, mark in row] for row in rows])
        following = torch.zeros_like(wrong)
        following[:, :-1] = wrong[:, 1:]
        return ids, following

    def _sequence(self) -> list[tuple[int, bool]]:
        row: list[tuple[int, bool]] = []
        while len(row) < self._length:
            row += self._chain() if self._rng.random() < self._chain_share else self._other()
        return row[: self._length]

    def _chain(self) -> list[tuple[int, bool]]:
        applied = self._rng.random() < self._applied_share
        chain = draw_chain(self._rule, self._rng, _OPERATORS, "train", applied=applied)
        ids, wrong = vocabulary.token_ids(), set(chain.wrong)
        marked = [(ids[token], place in wrong) for place, token in enumerate(chain.tokens)]
        return [(vocabulary.BOS_ID, False), *marked, (vocabulary.EOS_ID, False)]

    def _other(self) -> list[tuple[int, bool]]:
        """A document of another task."""
        while True:
            document = mixture.document(self._seed, self._next)
            self._next += 1
            if document.task != self._rule.language:
                return [(token, False) for token in vocabulary.encode(document)]
