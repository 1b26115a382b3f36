"""Probes of hidden states averaged over a step, at its last token, or before its answer.

Which layer and which pooling is read is chosen on held-out questions of the training steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import numpy as np
from jaxtyping import Float

from pellucid.verification.methods.features import reading
from pellucid.verification.methods.logistic import held_out, logistic, scale
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.networks import Trained, perceptron, train
from pellucid.verification.methods.training import Training, best, finite, fitted, training
from pellucid.verification.steps.step_set import StepSet

POOLINGS = ("hidden", "hidden_last", "hidden_answer")
"""Arrays [N, L + 1, d]: mean over the step, its last token, the token that predicts the answer."""
_TRIAL = 0.01
_SHORTLIST = 4

Scorer = Callable[[np.ndarray], Float[np.ndarray, " N"]]


class Place(NamedTuple):
    """Where a probe reads: arrays side by side, and one layer of them or (None) all."""

    arrays: tuple[str, ...]
    layer: int | None

    def values(self, steps: StepSet) -> Float[np.ndarray, "N d"]:
        """What is read there of each step.

        Args:
            steps: any steps with the arrays.

        Raises:
            DataError: they lack one, or a value is not finite.
        """
        parts = []
        for name in self.arrays:
            states = reading(steps, "arrays", name)
            part = states.reshape(len(steps), -1) if self.layer is None else states[:, self.layer]
            parts.append(finite(np.asarray(part, dtype=np.float64), name))
        return np.hstack(parts)


@final
@dataclass(slots=True, eq=False)
class Probe(Method):
    """A logistic or MLP reading of the hidden states.

    Attributes:
        name: in tables.
        kind: `logistic`; or `mlp`: one hidden layer, one network a fold, their margins averaged.
        poolings: arrays to choose from; one of them is read or all side by side, at one layer or
            all side by side.
    """

    name: str
    kind: Literal["logistic", "mlp"]
    poolings: Sequence[str] = POOLINGS
    rung: Rung = "hidden"
    _place: Place | None = None
    _score: Scorer | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Choose where to read, then fit there."""
        known = training(steps, self.name, seed=seed)
        order = ranked(steps, known, self.poolings)
        if self.kind == "logistic":
            self._place = order[0]
            self._score = logistic(self._place.values(steps), known)
            return
        tried = {each: networks(each.values(steps), known) for each in order[:_SHORTLIST]}
        self._place = best(tried, lambda each: tried[each].held_out)
        self._score = tried[self._place]

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The probe's margin."""
        place = fitted(self._place, self.name)
        return fitted(self._score, self.name)(place.values(steps))

    @property
    def place(self) -> Place:
        """Where it reads.

        Raises:
            ConfigError: the probe has not been fitted.
        """
        return fitted(self._place, self.name)


def ranked(steps: StepSet, known: Training, poolings: Sequence[str]) -> list[Place]:
    """Places in falling order of how well a logistic reading separates held-out questions.

    Args:
        steps: the training steps.
        known: their labels, weights and folds.
        poolings: arrays to read.

    Raises:
        DataError: the steps lack one of the arrays.
    """
    layers = reading(steps, "arrays", poolings[0]).shape[1]
    together = [tuple(poolings)] if len(poolings) > 1 else []
    places = [
        Place(arrays, layer)
        for arrays in [*((name,) for name in poolings), *together]
        for layer in (*range(layers), None)
    ]
    good = {each: held_out(each.values(steps), known, _TRIAL) for each in places}
    return sorted(places, key=lambda each: -good[each])


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """One network a fold, each with its own standardisation.

    Attributes:
        parts: scale and network of each fold.
        held_out: mean AUROC of each on the fold that it did not learn from.
    """

    parts: Sequence[tuple[Scorer, Trained]]
    held_out: float

    def __call__(self, x: Float[np.ndarray, "N d"]) -> Float[np.ndarray, " N"]:
        """The mean of their margins."""
        return np.mean([network(scaled(x)) for scaled, network in self.parts], axis=0)


def networks(x: Float[np.ndarray, "N d"], known: Training) -> Networks:
    """Train one network a fold, stopped early on the questions held out from it.

    Args:
        x: what is read of the training steps.
        known: their labels, weights and folds.
    """
    parts, good = [], []
    for number, (learn, rest) in enumerate(known.folds):
        scaled = scale(x[learn])
        network = train(perceptron(x.shape[1]), (scaled(x),), known, number)
        parts.append((scaled, network))
        good.append(known.separation(network(scaled(x[rest])), rest))
    return Networks(parts, float(np.mean(good)))
