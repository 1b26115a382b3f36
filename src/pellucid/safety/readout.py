"""How strongly a model leans to refusing, read from its next token.

The log odds of the tokens that begin its own refusals against those that begin its compliance, both
taken from answers that it gave. Positive: it is about to refuse.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DataError
from pellucid.safety.requests import COMPLIED, HARMFUL, REFUSED, Request
from pellucid.safety.subject import Subject

_CLEAR = 3.0


@final
@dataclass(frozen=True, slots=True)
class Readout:
    """The first tokens of refusals and of compliance.

    Attributes:
        refusing: token ids.
        complying: token ids.
    """

    refusing: tuple[int, ...]
    complying: tuple[int, ...]

    def __call__(self, logits: Float[Tensor, "B V"]) -> Float[Tensor, " B"]:
        """log P(refusing) - log P(complying) of the next token."""
        logp = logits.log_softmax(-1)
        refusing, complying = (
            torch.logsumexp(logp[:, list(tokens)], -1) for tokens in (self.refusing, self.complying)
        )
        return refusing - complying


def readout_of(subject: Subject, requests: Sequence[Request]) -> Readout:
    """The readout that the answers to harmful requests give.

    A token belongs to the behaviour in which it begins at least three times as large a share of
    the answers.

    Args:
        subject: whose tokenizer made the answers.
        requests: observed.

    Raises:
        DataError: the first tokens do not tell the behaviours apart.
    """
    counts = {
        behaviour: Counter(
            _first_token(subject, request.answer)
            for request in requests
            if request.label == HARMFUL and request.behaviour == behaviour and request.answer
        )
        for behaviour in (REFUSED, COMPLIED)
    }
    sets = []
    for mine, other in ((REFUSED, COMPLIED), (COMPLIED, REFUSED)):
        totals = [max(counts[each].total(), 1) for each in (mine, other)]
        clear = [
            token
            for token, count in counts[mine].items()
            if count / totals[0] >= _CLEAR * counts[other][token] / totals[1]
        ]
        sets.append(tuple(sorted(clear)))
    if not all(sets):
        raise DataError(
            f"the first tokens of {counts[REFUSED].total()} refusals and "
            f"{counts[COMPLIED].total()} answers to harmful requests do not tell them apart; give "
            "more requests, or another judge"
        )
    return Readout(*sets)


def _first_token(subject: Subject, answer: str) -> int:
    tokenizer = subject.model.tokenizer
    assert tokenizer is not None
    return int(tokenizer(answer, add_special_tokens=False)["input_ids"][0])
