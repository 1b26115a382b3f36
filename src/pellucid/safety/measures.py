"""What a treatment does: to attacks, to requests that deserve an answer, and to benign text."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import DataError
from pellucid.core.proportions import Proportion, wilson
from pellucid.graphs.resampling import interval
from pellucid.interventions.run import run
from pellucid.interventions.spec import Gate, Intervention
from pellucid.interventions.where import at
from pellucid.safety.requests import COMPLIED, REFUSED, Request
from pellucid.safety.subject import Subject
from pellucid.safety.treatment import Treatment

BOOTSTRAPS = 1000
_TEXTS = 64


@final
@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said under some edits.

    Attributes:
        texts: one a request.
        verdicts: `complied` or `refused`, one a request.
    """

    texts: list[str]
    verdicts: list[str]

    def only(self, rows: Sequence[int]) -> "Answers":
        """The answers of some rows.

        Args:
            rows: their numbers.
        """
        return Answers([self.texts[n] for n in rows], [self.verdicts[n] for n in rows])

    def share(self, behaviour: str) -> Proportion:
        """How often it behaved so, with Wilson's interval."""
        return wilson(self.verdicts.count(behaviour), len(self.verdicts))


def answered(
    subject: Subject, requests: Sequence[Request], edits: Sequence[Intervention] = ()
) -> Answers:
    """Ask and judge; text that asks for nothing must be left out.

    Args:
        subject: the model and its judge.
        requests: at least one.
        edits: interventions, the same for all rows.

    Raises:
        DataError: no requests.
        InterventionError: an edit that did not happen.
    """
    if not requests:
        raise DataError("there are no requests to measure on; give more")
    texts = subject.answers(subject.ids(requests), edits)[0]
    return Answers(texts, subject.judge.all(texts))


def complying(answers: Answers) -> Proportion:
    """The share that complied: attack success, when the requests are attacks."""
    return answers.share(COMPLIED)


def refusing(answers: Answers) -> Proportion:
    """The share that refused: over-refusal, when the requests are benign."""
    return answers.share(REFUSED)


def natural(answers: Answers, requests: Sequence[Request]) -> float:
    """The share of answers that the model has given, word for word, as a refusal of its own.

    Args:
        answers: under edits.
        requests: observed without edits.
    """
    own = {request.answer for request in requests if request.behaviour == REFUSED}
    return sum(text in own for text in answers.texts) / len(answers.texts)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """How far edits move a model's predictions on benign text.

    Attributes:
        kl: mean KL divergence of the edited from the plain next-token distribution, in nats a
            token, over the tokens from each prompt's decision on.
        low: lower end of the 95% interval, documents drawn with replacement.
        high: its upper end.
        ce_before: cross-entropy of the text without the edits, nats a token.
        ce_after: the same with them.
        tokens: how many distributions were compared.
        documents: of how many texts.
    """

    kl: float
    low: float | None
    high: float | None
    ce_before: float
    ce_after: float
    tokens: int
    documents: int

    def to_json(self) -> dict[str, Any]:
        """The figures, perplexities among them."""
        return {
            "value": self.kl,
            "low": self.low,
            "high": self.high,
            "perplexity": {
                "before": float(np.exp(self.ce_before)),
                "after": float(np.exp(self.ce_after)),
            },
            "tokens": self.tokens,
            "documents": self.documents,
        }


Arm = tuple[Treatment, Gate | None]


def divergence(
    subject: Subject,
    requests: Sequence[Request],
    arms: Sequence[Arm],
    *,
    every_token: bool = False,
    seed: int = 0,
) -> list[Divergence]:
    """The cost of treatments on benign text, teacher forced.

    Each text is a prompt and how it goes on (the true continuation, or the model's own answer).
    Tokens before the decision are not counted: edits there cannot happen, and would flatter.

    Args:
        subject: the model.
        requests: benign, with continuations or answers.
        arms: treatments with their gates, None for always.
        every_token: take every token for a decision, and count them all: the harshest reading.
        seed: of the resampling.

    Returns:
        One figure an arm.

    Raises:
        DataError: no request has an answer.
        InterventionError: an edit that did not happen.
    """
    texts = [(r, r.continuation or r.answer) for r in requests if r.continuation or r.answer]
    if not texts:
        raise DataError("no benign request has an answer; run discovery on this contrast set")
    rows: dict[int, list[list[int]]] = defaultdict(list)
    prompts = subject.ids([request for request, _ in texts])
    for prompt, (_, rest) in zip(prompts, texts, strict=True):
        whole = (prompt + _continued(subject, rest))[: subject.model.context_length]
        rows[1 if every_token else len(prompt)].append(whole)
    sums = []
    for start, batch in sorted(rows.items()):
        edits = [
            treatment.everywhere(gate) if every_token else treatment.placed(at(start - 1), gate)
            for treatment, gate in arms
        ]
        batch = sorted(batch, key=len)
        for first in range(0, len(batch), _TEXTS):
            sums.append(_compared(subject, batch[first : first + _TEXTS], edits, start))
    table = np.concatenate(sums)
    counts, before = table[:, 0], table[:, 1]
    pairs = table[:, 2:].T.reshape(len(arms), 2, -1)
    return [_figure(counts, before, kl, after, seed) for kl, after in pairs]


def _figure(
    counts: np.ndarray, before: np.ndarray, kl: np.ndarray, after: np.ndarray, seed: int
) -> Divergence:
    low, high = interval(
        lambda drawn: float(drawn @ kl / max(float(drawn @ counts), 1e-12)),
        len(kl),
        bootstraps=BOOTSTRAPS,
        rng=np.random.default_rng(seed),
    )
    total = float(counts.sum())
    return Divergence(
        kl=float(kl.sum()) / total,
        low=low,
        high=high,
        ce_before=float(before.sum()) / total,
        ce_after=float(after.sum()) / total,
        tokens=int(total),
        documents=len(kl),
    )


def fluency(subject: Subject, requests: Sequence[Request], answers: Answers) -> float:
    """Cross-entropy of answers under the plain model, in nats a token, their first token left out.

    The first token is what a treatment is meant to change; the rest shows whether it reads on as
    the model would have written after it.

    Args:
        subject: the model.
        requests: what was asked.
        answers: what was said.
    """
    total = count = 0.0
    for prompt, text in zip(subject.ids(requests), answers.texts, strict=True):
        said = _continued(subject, text)
        if len(said) < 2:
            continue
        ids = torch.tensor([prompt + said])
        with torch.no_grad():
            logp = subject.model.logits(ids).float().log_softmax(-1)[0]
        places = torch.arange(len(prompt) + 1, ids.shape[1])
        total -= float(logp[places - 1, ids[0, places]].sum())
        count += len(places)
    return total / count if count else float("nan")


def guarded_logits(
    subject: Subject, treatment: Treatment, gate: Gate | None
) -> Callable[[Int[Tensor, "B S"], Tensor], Float[Tensor, "B S V"]]:
    """The model as a function to logits, every token taken for a decision.

    Args:
        subject: the model.
        treatment: what is done.
        gate: when.
    """

    def logits(ids: Int[Tensor, "B S"], mask: Tensor) -> Float[Tensor, "B S V"]:
        edits = treatment.everywhere(gate)
        return run(
            subject.model, ids, edits, dictionaries=subject.dictionaries, mask=mask.bool()
        ).logits

    return logits


def _continued(subject: Subject, text: str) -> list[int]:
    tokenizer = subject.model.tokenizer
    assert tokenizer is not None
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


@torch.no_grad()
def _compared(
    subject: Subject,
    rows: Sequence[Sequence[int]],
    arms: Sequence[Sequence[Intervention]],
    start: int,
) -> np.ndarray:
    """By row: how many predictions from `start` on, the plain sum of cross-entropies, and for each
    arm the sums of KL and of cross-entropies."""
    prompts = [list(row) for row in rows]
    plain = run(subject.model, prompts)
    before = plain.logits.float().log_softmax(-1)
    ids, positions = plain.batch.ids, plain.batch.positions
    counted = (positions[:, 1:] >= start).double()

    def surprise(logp: Float[Tensor, "B S V"]) -> Float[Tensor, " B"]:
        right = logp[:, :-1].gather(2, ids[:, 1:, None])[..., 0].double()
        return -(right * counted).sum(1)

    columns = [counted.sum(1), surprise(before)]
    for edits in arms:
        edited = run(subject.model, prompts, edits, dictionaries=subject.dictionaries)
        after = edited.logits.float().log_softmax(-1)
        kl = (before.exp() * (before - after)).sum(-1)[:, :-1].double()
        columns += [(kl * counted).sum(1), surprise(after)]
    return torch.stack(columns, 1).cpu().numpy()
