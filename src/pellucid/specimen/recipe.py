"""How the specimen is made: `train_specimen`, reproducible from its seed and resumable."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from pellucid.core.config import config_to_dict
from pellucid.core.errors import ConfigError
from pellucid.core.files import storage_errors, write_text
from pellucid.specimen import architecture, checkpoint, optimisation
from pellucid.specimen.export import EVALUATION_COUNT, export_model
from pellucid.specimen.packing import PackedStream

CHECKPOINT, METRICS = "checkpoint", "metrics.jsonl"
MODEL, INTERMEDIATE = "model", "intermediate"
INTERMEDIATE_SHARE = 4
"""The intermediate model is taken after one step in this many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that determines the trained weights (on one kind of processor).

    Raises:
        ConfigError: fewer tokens than one batch, or more tokens a sequence than the context.
    """

    seed: int = 0
    tokens: int = 18_000_000
    sequence_length: int = 160
    batch_size: int = 48
    layers: int = 4
    width: int = 192
    heads: int = 6
    inner: int = 768
    peak_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(
                f"{self.tokens} tokens do not fill one batch; ask for at least {self.batch_tokens}"
            )
        if self.sequence_length > architecture.CONTEXT:
            raise ConfigError(
                f"sequences of {self.sequence_length} tokens do not fit the context; use at most "
                f"{architecture.CONTEXT}"
            )

    @property
    def batch_tokens(self) -> int:
        """Tokens a step."""
        return self.sequence_length * self.batch_size

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.tokens // self.batch_tokens


STANDARD = Recipe()
"""The recipe of the shipped weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands after a step; `seconds` counts the time before a resume as well."""

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float


class _Run:
    """One training run: model, optimiser and stream, moved forward a step at a time."""

    def __init__(self, recipe: Recipe) -> None:
        config = architecture.build_config(
            layers=recipe.layers, width=recipe.width, heads=recipe.heads, inner=recipe.inner
        )
        self.recipe = recipe
        self.step = 0
        self.model: LlamaForCausalLM = architecture.build_model(config, recipe.seed).train()
        self._optimiser = optimisation.build_optimiser(self.model, weight_decay=recipe.weight_decay)
        self._stream = PackedStream(seed=recipe.seed, length=recipe.sequence_length)

    def advance(self) -> float:
        """Take one step; returns the loss before it."""
        recipe = self.recipe
        rate = optimisation.learning_rate(
            self.step,
            peak=recipe.peak_rate,
            warmup_steps=recipe.warmup_steps,
            total_steps=recipe.steps,
        )
        ids = self._stream.next_batch(recipe.batch_size)
        loss = optimisation.train_step(
            self.model, self._optimiser, ids, rate=rate, clip=recipe.clip
        )
        self.step += 1
        return loss

    def save(self, folder: Path) -> None:
        """Write the whole state."""
        state = {"step": self.step, "next_document": self._stream.next_document}
        config = config_to_dict(self.recipe)
        checkpoint.save(folder, self.model, self._optimiser, config=config, state=state)

    def load(self, folder: Path) -> None:
        """Go on from a saved state of the same recipe."""
        config, state = checkpoint.load(folder, self.model, self._optimiser)
        for name, value in config_to_dict(self.recipe).items():
            if config[name] != value:
                raise ConfigError(
                    f"{folder} was made with {name} {config[name]}, this run has {value}; resume "
                    "with the same settings or train into another folder"
                )
        self.step, self._stream.next_document = state["step"], state["next_document"]


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to zero, which the late, tiny gradients would slow the CPU with."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _rewind_metrics(path: Path, step: int) -> float:
    """Drop the rows after `step`; returns the seconds that the run had taken by then."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = lines[:step]
    write_text(path, "".join(f"{line}\n" for line in kept))
    return float(json.loads(kept[-1])["seconds"]) if kept else 0.0


def _start(out: Path, run: _Run, *, resume: bool) -> float:
    """Prepare the folder and, to resume, the run; returns the seconds spent before."""
    if resume:
        run.load(out / CHECKPOINT)
    elif (out / CHECKPOINT).exists():
        raise ConfigError(f"{out} already holds a run; resume it or choose another folder")
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    return _rewind_metrics(out / METRICS, run.step)


def _export(run: _Run, folder: Path, seconds: float, evaluation_count: int) -> None:
    results = {"step": run.step, "tokens": run.step * run.recipe.batch_tokens, "seconds": seconds}
    export_model(
        run.model,
        folder,
        config=config_to_dict(run.recipe),
        results=results,
        count=evaluation_count,
    )


def train_specimen(
    out: Path,
    *,
    seed: int = STANDARD.seed,
    tokens: int = STANDARD.tokens,
    resume: bool = False,
    recipe: Recipe = STANDARD,
    save_every: int = 200,
    evaluation_count: int = EVALUATION_COUNT,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train the specimen and return the folder of the finished model, `out/model`.

    `out` also gets `checkpoint` (what `resume` goes on from), `metrics.jsonl` (one line a step)
    and `intermediate` (the model after a quarter of the steps, which errs more). On one thread
    a resumed run ends in the same bits as an uninterrupted one.

    Args:
        out: the run's folder.
        seed: of the initial weights and of the corpus.
        tokens: how many to train on; a last partial batch is left out.
        resume: go on from `out/checkpoint`.
        recipe: all other settings.
        save_every: steps between checkpoints.
        evaluation_count: items a task for the figures in the manifests.
        progress: called after every step.

    Raises:
        ConfigError: the settings are impossible, `out` holds a run and `resume` is off, or
            the run to resume had other settings.
        CheckpointError: nothing to resume, or a damaged checkpoint.
        StorageError: `out` cannot be written.
    """
    run = _Run(replace(recipe, seed=seed, tokens=tokens))
    steps, batch_tokens = run.recipe.steps, run.recipe.batch_tokens
    started = time.perf_counter() - _start(out, run, resume=resume)
    seconds = time.perf_counter() - started
    with (
        _denormals_flushed(),
        storage_errors(out),
        (out / METRICS).open("a", encoding="utf-8", buffering=1) as metrics,
    ):
        while run.step < steps:
            loss = run.advance()
            seconds = time.perf_counter() - started
            now = Progress(
                step=run.step,
                steps=steps,
                loss=loss,
                tokens=run.step * batch_tokens,
                seconds=seconds,
            )
            metrics.write(json.dumps(config_to_dict(now)) + "\n")
            if run.step == steps // INTERMEDIATE_SHARE:
                _export(run, out / INTERMEDIATE, seconds, evaluation_count)
            if run.step % save_every == 0 or run.step == steps:
                run.save(out / CHECKPOINT)
            if progress is not None:
                progress(now)
    _export(run, out / MODEL, seconds, evaluation_count)
    return out / MODEL
