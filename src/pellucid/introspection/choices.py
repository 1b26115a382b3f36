"""Forced choices: which sentence an injection was in, and in which of two it was stronger."""

from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import numpy as np

from pellucid.introspection.arms import Arms, Cell
from pellucid.introspection.injection import Asked, within
from pellucid.introspection.statistics import Rate, Trials, rate_of

Task = Literal["localisation", "comparison"]
WEAKER = 0.4
"""Of the stronger strength, in a comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How often a forced choice was right.

    Attributes:
        task: which.
        rate: right, judged by the largest logit among the labels.
        chance: of a guess.
        in_form: share of trials whose likeliest next token is one of the labels at all.
    """

    task: Task
    rate: Rate
    chance: float
    in_form: float

    @property
    def measurable(self) -> bool:
        """Whether the model answers in the form asked for in at least half of the trials."""
        return self.in_form >= 0.5

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval is."""
        return self.measurable and self.rate.low > self.chance

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return self.rate.to_json() | {
            "chance": self.chance,
            "in_form": self.in_form,
            "measurable": self.measurable,
        }


def choose(arms: Arms, cell: Cell, task: Task, *, kind: str = "concept") -> Choice:
    """Run a forced choice over a cell's trials.

    Args:
        arms: the suite's arms.
        cell: which trials.
        task: `localisation` or `comparison`.
        kind: `concept`, or `random` for vectors without a meaning.

    Raises:
        InterventionError: an injection did not happen.
    """
    wording, dialogue = arms.dialogue.wording, arms.dialogue
    labels = wording.labels if task == "localisation" else wording.labels[:2]
    labels = labels[: len(wording.sentences)]
    form = wording.localisation if task == "localisation" else wording.comparison
    rng = Random(f"{task} {arms.seed}")
    rows, right = [], []
    for row in range(len(cell.words)):
        for repeat in range(cell.repeats):
            pairs = list(zip(labels, rng.sample(wording.sentences, len(labels)), strict=True))
            items = " ".join(
                wording.items.format(label=label, sentence=text) for label, text in pairs
            )
            question = form.format(items=items, n=1 + repeat)
            turns = [*wording.setting, ("user", question)]
            prompt = dialogue.write(turns, pairs)
            chosen = rng.randrange(len(labels))
            vector = arms.vector(cell, kind, row, repeat)
            injections = [within(prompt, labels[chosen], vector)]
            if task == "comparison":
                injections.append(within(prompt, labels[1 - chosen], vector * WEAKER))
            rows.append(Asked(prompt=prompt, injections=tuple(injections)))
            right.append(chosen)
    options = dialogue.options(labels)
    logits = arms.asker(cell.layer).next_logits(rows)
    known = {token for option in options for token in option}
    in_form = float(np.mean([int(each.argmax()) in known for each in logits]))
    picks = [
        int(np.argmax([float(each[option].logsumexp(dim=0)) for option in options]))
        for each in logits
    ]
    hits: Trials = np.array(
        [float(pick == each) for pick, each in zip(picks, right, strict=True)]
    ).reshape(cell.shape)
    return Choice(task=task, rate=rate_of(hits), chance=1 / len(labels), in_form=in_form)
