"""How copies are made: a low-rank update of one layer's MLP, in minutes on one core.

Where the rule applies the copy learns the rule's value; everywhere else, other tasks included, it
learns to predict what the specimen predicts on the same text (a Kullback-Leibler divergence), so
that the specimen's own doubts and errors stay. What the blocks before the layer give is the same
for both, and is computed once.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from pellucid.core.config import config_to_dict
from pellucid.core.errors import ConfigError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import Manifest
from pellucid.core.registry import Registry
from pellucid.introspection.organisms.recipe import KIND, WEIGHTS_FILE, Progress
from pellucid.models.model import LanguageModel
from pellucid.specimen.low_rank import as_tensors, attach, merge, mlp_layers
from pellucid.specimen.optimisation import learning_rate
from pellucid.verification.planted.lessons import Lessons
from pellucid.verification.planted.measure import measure
from pellucid.verification.planted.rules import RULES


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that determines a copy (on one kind of processor).

    Attributes:
        rule: name of the rule.
        layer: whose MLP learns; nothing else does.
        seed: of the update and the lessons.
        rank: of the updates of the MLP's three matrices.
        steps: of the optimiser.
        batches: that are read again and again, in another order each time.
        rows: packed sequences a batch.
        length: their tokens.
        chain_share: of documents that are chains in the rule's language.
        applied_share: of those chains in which the rule applies.
        kept_weight: of the divergence from the specimen.
        peak_rate: of AdamW.
        tested: held-out questions that measure the copy.
    """

    rule: str
    layer: int
    seed: int = 0
    rank: int = 16
    steps: int = 400
    batches: int = 80
    rows: int = 16
    length: int = 128
    chain_share: float = 0.8
    applied_share: float = 0.85
    kept_weight: float = 2.0
    peak_rate: float = 1e-2
    tested: int = 300

    def __post_init__(self) -> None:
        _ = RULES[self.rule]
        for name in ("rank", "steps", "batches", "rows", "tested"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Packed sequences and what the specimen makes of them.

    Attributes:
        ids: the tokens.
        wrong: where the token that follows is one of the rule's values.
        hidden: the residual stream before the layer that learns.
        logits: the specimen's, where `wrong` is false.
    """

    ids: Int[Tensor, "B S"]
    wrong: Bool[Tensor, "B S"]
    hidden: Float[Tensor, "B S d"]
    logits: Float[Tensor, "kept V"]


RECIPES: Registry[Recipe] = Registry(
    "planted rule",
    {
        each.rule: each
        for each in (
            Recipe(rule="dropped-minus", layer=2, steps=300),
            Recipe(rule="swapped-minus", layer=3, steps=250),
            Recipe(rule="dropped-carry", layer=3, steps=200),
            Recipe(rule="product-sign", layer=3, steps=250),
            Recipe(rule="xor-both", layer=1, steps=300),
            Recipe(rule="dropped-not", layer=1, steps=250),
            Recipe(rule="strict-or", layer=2, steps=300),
            Recipe(rule="first-and", layer=0, steps=250),
        )
    },
)
"""Rule -> how its shipped copy was made."""


def train_copy(
    specimen: LanguageModel,
    recipe: Recipe,
    out: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train a copy of the specimen that follows a rule, measure it and write its update.

    Args:
        specimen: the packaged model; it is not changed.
        recipe: what to train.
        out: the folder; an older copy there is replaced whole.
        on_progress: called after every step.

    Raises:
        ConfigError: the specimen has no such layer.
        StorageError: the folder cannot be written.
    """
    if not 0 <= recipe.layer < specimen.n_layers:
        raise ConfigError(
            f"layer is {recipe.layer} and the model has {specimen.n_layers} layers; give one of "
            f"0 to {specimen.n_layers - 1}"
        )
    started = time.perf_counter()
    tensors = _train(specimen, recipe, on_progress)
    write_copy(specimen, recipe, tensors, out, seconds=time.perf_counter() - started)
    return out


def write_copy(
    specimen: LanguageModel,
    recipe: Recipe,
    tensors: Mapping[str, Tensor],
    out: Path,
    *,
    seconds: float,
) -> None:
    """Measure a trained update and write it.

    Args:
        specimen: the packaged model; it is not changed.
        recipe: by which the update was trained.
        tensors: the update.
        out: the folder; an older copy there is replaced whole.
        seconds: that training took.

    Raises:
        StorageError: the folder cannot be written.
    """
    copied = LanguageModel(
        copy.deepcopy(specimen.module), specimen.tokenizer, spec=specimen.spec, name=recipe.rule
    )
    merge(copied.module, tensors)
    result = measure(specimen, copied, RULES[recipe.rule], questions=recipe.tested)
    manifest = Manifest(
        kind=KIND,
        config=config_to_dict(recipe),
        seed=recipe.seed,
        parents={"model": specimen.fingerprint()},
        results=config_to_dict(result) | {"seconds": seconds},
    )
    with atomic_directory(out) as folder:
        save_file(dict(tensors), folder / WEIGHTS_FILE)
        manifest.write(folder, [WEIGHTS_FILE])


def _train(
    specimen: LanguageModel, recipe: Recipe, on_progress: Callable[[Progress], None] | None
) -> dict[str, Tensor]:
    """The trained update."""
    batches = list(prepared_batches(specimen, recipe))
    module = copy.deepcopy(specimen.module).requires_grad_(False)
    updates = attach(module, mlp_layers(recipe.layer), rank=recipe.rank, seed=recipe.seed)
    module.model.layers = module.model.layers[recipe.layer :]  # it begins with the residual stream
    parameters = [each for update in updates.values() for each in update.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    rng, order = Random(recipe.seed), list[Batch]()
    for step in range(recipe.steps):
        order = order or rng.sample(batches, len(batches))
        rate = learning_rate(step, peak=recipe.peak_rate, warmup_steps=20, total_steps=recipe.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = rule_loss(module, order.pop(), kept_weight=recipe.kept_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if on_progress is not None:
            on_progress(Progress(step=step + 1, steps=recipe.steps, loss=float(loss.detach())))
    return as_tensors(updates)


@torch.no_grad()
def prepared_batches(specimen: LanguageModel, recipe: Recipe) -> Iterator[Batch]:
    """The lessons, with what the specimen makes of them.

    Args:
        specimen: the plain model.
        recipe: which lessons, and which layer learns.
    """
    lessons = Lessons(
        RULES[recipe.rule],
        seed=recipe.seed,
        length=recipe.length,
        chain_share=recipe.chain_share,
        applied_share=recipe.applied_share,
    )
    for _ in range(recipe.batches):
        ids, wrong = lessons.next_batch(recipe.rows)
        with torch.autocast("cpu", torch.bfloat16):
            out = specimen.module(input_ids=ids, use_cache=False, output_hidden_states=True)
        hidden, logits = out.hidden_states[recipe.layer], out.logits[~wrong].bfloat16()
        yield Batch(ids=ids, wrong=wrong, hidden=hidden, logits=logits)


def rule_loss(module: nn.Module, batch: Batch, *, kept_weight: float) -> Float[Tensor, ""]:
    """Cross-entropy of the rule's values, and the divergence from the specimen elsewhere.

    Both are divided by the number of the rule's values, so that the balance is that of a sum over
    all tokens.

    Args:
        module: a Llama without the blocks before the layer that learns.
        batch: what it reads.
        kept_weight: of the divergence.
    """
    logits = module(inputs_embeds=batch.hidden, use_cache=False).logits
    targets = batch.ids.roll(-1, 1)[batch.wrong]
    taught = functional.cross_entropy(logits[batch.wrong].float(), targets)
    kept = functional.kl_div(
        logits[~batch.wrong].float().log_softmax(-1),
        batch.logits.float().log_softmax(-1),
        log_target=True,
        reduction="sum",
    )
    return taught + kept_weight * kept / max(1, len(targets))
