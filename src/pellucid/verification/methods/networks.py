"""Small networks trained on steps: weighted cross-entropy, stopped early on held-out questions."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.verification.methods.training import Training

EPOCHS, PATIENCE, BATCH = 40, 6, 256
RATE, DECAY = 3e-3, 1e-2
HIDDEN, DROPOUT = 64, 0.2
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained network.

    Attributes:
        module: maps inputs, one row a step, to one margin a step.
    """

    module: nn.Module

    @torch.no_grad()
    def __call__(self, *inputs: np.ndarray) -> Float[np.ndarray, " N"]:
        """The margin of each row of the inputs."""
        self.module.eval()
        parts = [
            self.module(*(torch.from_numpy(each[at : at + _AT_ONCE]).float() for each in inputs))
            for at in range(0, len(inputs[0]), _AT_ONCE)
        ]
        return torch.cat(parts).double().numpy() if parts else np.zeros(0)


def perceptron(width: int) -> Callable[[], nn.Module]:
    """A maker of networks with one hidden layer.

    Args:
        width: of the input.
    """

    def make() -> nn.Module:
        layers = (nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 1))
        return nn.Sequential(*layers, nn.Flatten(0))

    return make


def train(
    make: Callable[[], nn.Module], inputs: Sequence[np.ndarray], known: Training, fold: int
) -> Trained:
    """Train on the rows of one fold; keep the weights with the least loss on those held out.

    Leaves torch's global random state as it was.

    Args:
        make: makes a new network.
        inputs: what it is given, one row a training step each.
        known: labels, weights and folds of the training steps.
        fold: which of them; the seed of this network too.
    """
    learn, rest = known.folds[fold]
    labels = torch.from_numpy(known.labels.astype(np.float32))
    weights = torch.from_numpy(known.balanced.astype(np.float32))
    tensors = [torch.from_numpy(np.ascontiguousarray(each)) for each in inputs]

    def loss(module: nn.Module, rows: Tensor) -> Tensor:
        margins = module(*(each[rows].float() for each in tensors))
        return nn.functional.binary_cross_entropy_with_logits(margins, labels[rows], weights[rows])

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(1000 * known.seed + fold)
        module = make()
        steps = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=DECAY)
        held, rows = torch.from_numpy(rest), torch.from_numpy(learn)
        kept, least, since = copy.deepcopy(module.state_dict()), float("inf"), 0
        for _ in range(EPOCHS):
            module.train()
            for part in rows[torch.randperm(len(rows))].split(BATCH):
                steps.zero_grad()
                loss(module, part).backward()
                steps.step()
            found = _held_loss(module, loss, held)
            since += 1
            if found < least:
                kept, least, since = copy.deepcopy(module.state_dict()), found, 0
            if since >= PATIENCE:
                break
        module.load_state_dict(kept)
    return Trained(module.eval())


@torch.no_grad()
def _held_loss(
    module: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor], rows: Tensor
) -> float:
    module.eval()
    parts = rows.split(_AT_ONCE)
    return sum(float(loss(module, part)) * len(part) for part in parts) / len(rows)
