"""A probe that chooses by attention which tokens of the step it reads."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pellucid.core.errors import DataError
from pellucid.verification.methods.features import reading
from pellucid.verification.methods.logistic import held_out
from pellucid.verification.methods.method import Method, Rung
from pellucid.verification.methods.networks import Trained, train
from pellucid.verification.methods.training import Training, best, finite, fitted, training
from pellucid.verification.steps.step_set import StepSet

TOKENS = "hidden_tokens"
WIDTH, HEADS = 32, 4
_TRIAL = 0.01
_SHORTLIST = 2


class Spread(NamedTuple):
    """Mean and deviation of each dimension over the tokens of training steps [d]."""

    mean: np.ndarray
    deviation: np.ndarray


@final
class AttentionPooling(nn.Module):
    """A narrow layer of every token, then heads that each weigh the tokens and read their mean.

    A head's attention sees what a token is and how far from the step's end it stands.

    Args:
        width: of a hidden state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Linear(width, WIDTH), nn.GELU(), nn.Dropout(0.1))
        self.attend = nn.Linear(WIDTH, HEADS)
        self.near = nn.Parameter(torch.linspace(-0.5, 0.5, HEADS))
        self.read = nn.Linear(WIDTH, HEADS)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "N T d"], there: Float[Tensor, "N T"]) -> Tensor:
        """One margin a step [N].

        Args:
            x: standardised hidden states, padded.
            there: 1 for a token, 0 for padding.
        """
        narrow = self.narrow(x)
        behind = (there.sum(1, keepdim=True) - there.cumsum(1)).clamp(min=0)
        scores = self.attend(narrow) - self.near * behind[..., None]
        scores = scores.masked_fill(there[..., None] == 0, -torch.inf)
        return (scores.softmax(1) * self.read(narrow)).sum((1, 2)) + self.bias


@final
@dataclass(slots=True, eq=False)
class AttentionProbe(Method):
    """`AttentionPooling` at the layer that separates held-out questions best, one network a fold.

    Attributes:
        name: in tables.
    """

    name: str = "attention-probe"
    rung: Rung = "hidden"
    _layer: int | None = None
    _parts: list[tuple[Spread, Trained]] | None = None

    def fit(self, steps: StepSet, *, seed: int) -> None:
        """Choose the layer, then keep its networks."""
        known = training(steps, self.name, seed=seed)
        tried = {
            layer: _networks(steps, layer, known) for layer in _ranked(steps, known)[:_SHORTLIST]
        }
        self._layer = best(tried, lambda each: tried[each].held_out)
        self._parts = tried[self._layer].parts

    def score(self, steps: StepSet) -> Float[np.ndarray, " N"]:
        """The mean margin of its networks."""
        layer = fitted(self._layer, self.name)
        parts = fitted(self._parts, self.name)
        return np.mean([network(*_padded(steps, layer, each)) for each, network in parts], axis=0)

    @property
    def layer(self) -> int:
        """The layer that it reads.

        Raises:
            ConfigError: the probe has not been fitted.
        """
        return fitted(self._layer, self.name)


def _ranked(steps: StepSet, known: Training) -> list[int]:
    """Layers by how well the mean and the last token together separate held-out questions."""
    tokens = reading(steps, "ragged", TOKENS)
    if not tokens.lengths.all():
        raise DataError(f"a step has no row in {TOKENS}; collect these steps again")
    ends = np.cumsum(tokens.lengths)
    good = {}
    for layer in range(tokens.values.shape[1]):
        states = np.asarray(tokens.values[:, layer], dtype=np.float64)
        finite(states, TOKENS)
        means = np.add.reduceat(states, ends - tokens.lengths, axis=0) / tokens.lengths[:, None]
        good[layer] = held_out(np.hstack([means, states[ends - 1]]), known, _TRIAL)
    return sorted(good, key=lambda each: -good[each])


class _Tried(NamedTuple):
    """Networks of one layer, one a fold, and their mean AUROC on what they did not learn from."""

    parts: list[tuple[Spread, Trained]]
    held_out: float


def _networks(steps: StepSet, layer: int, known: Training) -> _Tried:
    tokens = reading(steps, "ragged", TOKENS)
    step = np.repeat(np.arange(len(steps)), tokens.lengths)
    parts, good = [], []
    for number, (learn, rest) in enumerate(known.folds):
        mine = np.asarray(tokens.values[np.isin(step, learn), layer], dtype=np.float64)
        deviation = mine.std(0)
        spread = Spread(mine.mean(0), np.where(deviation > 1e-9, deviation, np.inf))
        inputs = _padded(steps, layer, spread)
        network = train(partial(AttentionPooling, mine.shape[1]), inputs, known, number)
        parts.append((spread, network))
        good.append(known.separation(network(*(each[rest] for each in inputs)), rest))
    return _Tried(parts, float(np.mean(good)))


def _padded(
    steps: StepSet, layer: int, spread: Spread
) -> tuple[Float[np.ndarray, "N T d"], Bool[np.ndarray, "N T"]]:
    """Standardised tokens of every step, zeros after its last, and which of them are there."""
    tokens = reading(steps, "ragged", TOKENS)
    longest = int(tokens.lengths.max(initial=1))
    there = np.arange(longest)[None] < tokens.lengths[:, None]
    padded = np.zeros((len(steps), longest, tokens.values.shape[-1]), dtype=np.float16)
    states = (tokens.values[:, layer].astype(np.float64) - spread.mean) / spread.deviation
    padded[there] = np.clip(finite(states, TOKENS), -8, 8)
    return padded, there
