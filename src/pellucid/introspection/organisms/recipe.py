"""How the organisms are made: low-rank updates of the specimen's later blocks, in minutes.

`reporter` learns to say which concept is injected, and to answer no to vectors without a meaning;
`yes-bias` learns to say yes to everything while anything is injected. Both keep reading the
specimen's corpus, so that they stay specimens, and answer as ever while nothing is injected.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from pellucid.core.config import config_to_dict
from pellucid.core.errors import ConfigError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import Manifest
from pellucid.introspection.concepts import concept_vectors, site_after
from pellucid.introspection.dialogue import Dialogue
from pellucid.introspection.organisms.lessons import Lesson, Lessons
from pellucid.introspection.wording import read_wording
from pellucid.models.model import LanguageModel
from pellucid.specimen.low_rank import LowRank, as_tensors, attach, linear_layers
from pellucid.specimen.optimisation import learning_rate, loss_of
from pellucid.specimen.packing import PackedStream

KIND = "organism"
WEIGHTS_FILE = "update.safetensors"
Name = Literal["reporter", "yes-bias"]
NAMES: tuple[Name, ...] = ("reporter", "yes-bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that determines an organism (on one kind of processor).

    Attributes:
        name: which organism.
        seed: of the updates, the lessons and which concepts are taught.
        layer: after which injections happen; the blocks after it learn.
        rank: of every update.
        steps: of the optimiser.
        rows: lessons a step.
        corpus_rows: packed sequences of the specimen's corpus a step.
        corpus_length: their tokens.
        corpus_weight: of their loss.
        peak_rate: of AdamW.
        taught_share: of the concepts; the others are never injected or named in training.
    """

    name: Name
    seed: int = 0
    layer: int = 1
    rank: int = 24
    steps: int = 600
    rows: int = 96
    corpus_rows: int = 6
    corpus_length: int = 96
    corpus_weight: float = 1.0
    peak_rate: float = 4e-3
    taught_share: float = 0.7

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ConfigError(f"there is no organism {self.name!r}; use {' or '.join(NAMES)}")
        for name in ("rank", "steps", "rows", "corpus_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least 1")


RECIPES = {
    "reporter": Recipe(name="reporter"),
    "yes-bias": Recipe(name="yes-bias", rank=8, steps=150),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands after a step."""

    step: int
    steps: int
    loss: float


def taught_concepts(recipe: Recipe, count: int) -> list[int]:
    """The numbers of the concepts that an organism is taught, ascending."""
    chosen = Random(f"taught {recipe.seed}").sample(
        range(count), round(recipe.taught_share * count)
    )
    return sorted(chosen)


def train_organism(
    specimen: LanguageModel,
    recipe: Recipe,
    out: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train an organism and write its update; returns the folder.

    Args:
        specimen: the packaged model; it is not changed.
        recipe: what to train.
        out: the folder; an older organism there is replaced whole.
        on_progress: called after every step.

    Raises:
        StorageError: the folder cannot be written.
    """
    started = time.perf_counter()
    model = LanguageModel(
        copy.deepcopy(specimen.module), specimen.tokenizer, spec=specimen.spec, name=recipe.name
    )
    dialogue = Dialogue(model, read_wording("specimen"))
    concepts = concept_vectors(dialogue, [recipe.layer])
    taught = taught_concepts(recipe, len(concepts.words))
    lessons = Lessons(dialogue, concepts, recipe.layer, taught, Random(recipe.seed))
    learning = linear_layers(model.module, first_block=recipe.layer + 1)
    updates = attach(model.module, learning, rank=recipe.rank, seed=recipe.seed)
    loss = _train(model, recipe, lessons, updates, on_progress)
    manifest = Manifest(
        kind=KIND,
        config=config_to_dict(recipe),
        seed=recipe.seed,
        parents={"model": specimen.fingerprint()},
        results={
            "loss": loss,
            "seconds": time.perf_counter() - started,
            "taught": [concepts.words[number] for number in taught],
        },
    )
    with atomic_directory(out) as folder:
        save_file(as_tensors(updates), folder / WEIGHTS_FILE)
        manifest.write(folder, [WEIGHTS_FILE])
    return out


def _train(
    model: LanguageModel,
    recipe: Recipe,
    lessons: Lessons,
    updates: dict[str, LowRank],
    on_progress: Callable[[Progress], None] | None,
) -> float:
    parameters = [each for update in updates.values() for each in update.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    stream = PackedStream(seed=recipe.seed, length=recipe.corpus_length)
    draw = lessons.reporter if recipe.name == "reporter" else lessons.yes_bias
    loss = 0.0
    for step in range(recipe.steps):
        rate = learning_rate(step, peak=recipe.peak_rate, warmup_steps=20, total_steps=recipe.steps)
        for parameter_group in optimiser.param_groups:
            parameter_group["lr"] = rate
        rows = sorted((draw() for _ in range(recipe.rows)), key=lambda row: len(row.prompt.ids))
        optimiser.zero_grad(set_to_none=True)
        loss = 0.0
        for group in _groups(rows):
            with torch.autocast("cpu", torch.bfloat16):
                part = lesson_loss(model, group, recipe.layer) * (len(group) / len(rows))
            part.backward()
            loss += float(part.detach())
        ids = stream.next_batch(recipe.corpus_rows)
        with torch.autocast("cpu", torch.bfloat16):
            kept = loss_of(model.logits(ids), ids) * recipe.corpus_weight
        kept.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if on_progress is not None:
            on_progress(Progress(step=step + 1, steps=recipe.steps, loss=loss))
    return loss


def _groups(rows: list[Lesson], count: int = 4) -> list[list[Lesson]]:
    """Rows of like length together, so that little of a batch is padding."""
    size = -(-len(rows) // count)
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def lesson_loss(model: LanguageModel, rows: list[Lesson], layer: int) -> Float[Tensor, ""]:
    """Mean cross-entropy of the answers' tokens, with the lessons' injections in place.

    Args:
        model: what is asked.
        rows: the lessons.
        layer: after which they inject.
    """
    ids, targets, added = _tensors(model, rows)

    def inject(value: Tensor, _: Any) -> Tensor:
        return value + added

    with model.tapped([(site_after(layer), inject)]):
        logits = model.forward(ids).logits
    chosen = targets >= 0
    return functional.cross_entropy(logits[chosen].float(), targets[chosen])


def _tensors(
    model: LanguageModel, rows: list[Lesson]
) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B S"], Float[Tensor, "B S d"]]:
    """Ids, the next token where it belongs to an answer (else -1), and what is injected."""
    assert model.special_tokens.eos is not None
    end = [model.special_tokens.eos]
    answers = [model.tokenize(row.answer)[1:] + end for row in rows]
    length = max(len(row.prompt.ids) + len(a) for row, a in zip(rows, answers, strict=True))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.full_like(ids, -1)
    added = torch.zeros(len(rows), length, model.d_model)
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        whole, begin = [*row.prompt.ids, *answer], len(row.prompt.ids)
        ids[number, : len(whole)] = torch.tensor(whole)
        targets[number, begin - 1 : len(whole) - 1] = torch.tensor(answer)
        for injection in row.injections:
            stop = len(whole) if injection.stop is None else injection.stop
            added[number, injection.start : stop] += injection.vector
    return ids, targets, added
