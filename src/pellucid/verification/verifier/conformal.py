"""A threshold that flags a promised share of wrong steps, whatever the verifier is worth.

Split conformal prediction for one class (Vovk 2012): of G questions with wrong steps, each counts
by the lowest margin among its wrong steps, and the threshold is the k-th lowest of those, with
k = floor((G + 1)(1 - recall)). If a new question with wrong steps is exchangeable with these G, all
its wrong steps are flagged with a probability of at least `recall` (and, without ties, of less than
recall + 1 / (G + 1)). The promise is about whole questions, since the steps of one question are not
independent. It is an average over draws of the G questions and the new one; it says nothing of how
many right steps are flagged, and nothing of questions from another domain.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Float64, Int64

Basis = Literal["out-of-fold", "held-out"]
"""
held-out: the margins are of questions that the verifier never saw; the promise holds as it stands.
out-of-fold: each margin is from a verifier fitted without its question, but on fewer questions than
the final one; the promise then holds approximately.
"""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conformal:
    """Thresholds of the margin, one a stratum of length.

    Attributes:
        recall: the share promised.
        edges: numbers of tokens at which the strata meet; empty for one stratum.
        margins: at or above this a step is flagged; -infinity, which flags all, where there are too
            few questions for the promise.
        questions: with wrong steps, that each threshold rests on.
        basis: where the margins come from.
    """

    recall: float
    edges: Float64[np.ndarray, " S-1"]
    margins: Float64[np.ndarray, " S"]
    questions: Int64[np.ndarray, " S"]
    basis: Basis

    def at(self, tokens: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """The threshold for each step.

        Args:
            tokens: how long each step is.
        """
        return self.margins[np.searchsorted(self.edges, tokens, side="right")]

    def to_json(self) -> dict[str, Any]:
        """What is promised, and on what, as a JSON-able record (no threshold as None)."""
        return {
            "recall": self.recall,
            "edges": self.edges.tolist(),
            "margins": [float(m) if np.isfinite(m) else None for m in self.margins],
            "questions": self.questions.tolist(),
            "questions_needed": questions_needed(self.recall),
            "basis": self.basis,
            "statement": self.statement(),
        }

    def statement(self) -> str:
        """The promise in words."""
        needed = questions_needed(self.recall)
        few = int((self.questions < needed).sum())
        if few == len(self.questions):
            return (
                f"every step is flagged: {int(self.questions.max())} questions with wrong steps "
                f"promise no recall of {self.recall:g}, {needed} would"
            )
        means = "at least" if self.basis == "held-out" else "about"
        strata = "" if len(self.margins) == 1 else ", in each stratum of length"
        lost = f"; {few} strata have too few questions and are flagged whole" if few else ""
        return (
            f"for a new question of the same kind all wrong steps are flagged with probability "
            f"{means} {self.recall:g}{strata}{lost}"
        )


def questions_needed(recall: float) -> int:
    """How many questions with wrong steps a promise needs at least.

    Args:
        recall: the share promised.
    """
    return math.ceil(recall / (1 - recall) - 1e-9)


def conformal(
    margins: Float64[np.ndarray, " N"],
    wrong: Bool[np.ndarray, " N"],
    groups: np.ndarray,
    tokens: Float64[np.ndarray, " N"],
    *,
    recall: float,
    strata: int = 1,
    basis: Basis,
) -> Conformal:
    """Thresholds from margins of steps that the verifier was not fitted on.

    Args:
        margins: higher where a step is more likely wrong.
        wrong: the truth.
        groups: each step's question.
        tokens: how long each step is.
        recall: the share promised, between 0 and 1.
        strata: in how many parts by length the promise is kept (Mondrian); cut at quantiles of the
            wrong steps' lengths.
        basis: where the margins come from.
    """
    margins, groups, tokens = margins[wrong], groups[wrong], tokens[wrong]
    edges = np.unique(np.quantile(tokens, np.linspace(0, 1, strata + 1)[1:-1]))
    stratum = np.searchsorted(edges, tokens, side="right")
    found, questions = [], []
    for number in range(len(edges) + 1):
        rows = stratum == number
        _, member = np.unique(groups[rows], return_inverse=True)
        lowest = np.full(member.max(initial=-1) + 1, np.inf)
        np.minimum.at(lowest, member.reshape(-1), margins[rows])
        k = math.floor((len(lowest) + 1) * (1 - recall) + 1e-9)
        found.append(np.sort(lowest)[k - 1] if k else -np.inf)
        questions.append(len(lowest))
    return Conformal(
        recall=recall,
        edges=edges,
        margins=np.array(found),
        questions=np.array(questions, dtype=np.int64),
        basis=basis,
    )
