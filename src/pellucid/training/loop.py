"""Training from text to saved dictionaries: the shell around the steps."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from pellucid.core.config import config_from_dict
from pellucid.core.errors import ConfigError
from pellucid.core.files import storage_errors
from pellucid.core.manifest import MANIFEST_NAME, read_manifest
from pellucid.dictionaries.checkpoint import ARTIFACT_KIND, save_dictionaries
from pellucid.harvest.fidelity import LayerFidelity, measure_dictionaries
from pellucid.harvest.live import site_widths, tokens_to_shuffle
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.training.config import TrainConfig
from pellucid.training.metrics import MetricsLog, TrainProgress, Window
from pellucid.training.resumable import (
    CHECKPOINTS,
    METRICS,
    begin,
    keep_going,
    put_in_place,
    warn_of_repetition,
)
from pellucid.training.run import Run, RunPlan
from pellucid.training.run_checkpoint import check_identity
from pellucid.training.sites import layer_sites

LOG_STEPS = 10
LONGEST_CONTEXT = 256
"""Tokens of text the model reads at once, unless its context is shorter or another is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished run.

    Attributes:
        out: the folder of the dictionaries.
        tokens: trained on.
        tokens_per_second: of harvesting and training together.
        layers: figures by layer, measured when training was over.
        measured_on: "held-out text", or "training text" where the text was too short to split.
    """

    out: Path
    tokens: int
    tokens_per_second: float
    layers: tuple[LayerFidelity, ...]
    measured_on: str

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""
        return {
            "out": str(self.out),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "layers": [layer.to_json() for layer in self.layers],
            "measured_on": self.measured_on,
        }


def train(
    model: LanguageModel,
    data: str | Path | TextSource,
    out: str | Path,
    *,
    config: TrainConfig | None = None,
    tokens: int = 2_000_000,
    layers: Sequence[int] | None = None,
    read: str | None = None,
    write: str | None = None,
    context_length: int | None = None,
    shuffle_tokens: int | None = None,
    forward_precision: Literal["float32", "bfloat16"] | None = None,
    field: str = "text",
    resume: bool = False,
    checkpoint_seconds: float = 300.0,
    held_out_tokens: int = 50_000,
    store_dtype: torch.dtype = torch.float32,
    on_progress: Callable[[TrainProgress], None] | None = None,
    **settings: Any,
) -> TrainResult:
    """Train one dictionary a layer on a model's activations and save them.

    `out` holds `metrics.jsonl` and `checkpoints/` while the run goes on, and the dictionaries when
    it is over; the checkpoints are then deleted. A run that was stopped, by whatever means, goes on
    with `resume` and ends with the weights it would have had, bit for bit on one thread.

    Args:
        model: see `load_model`.
        data: text to train on, see `open_text`; part of it is held out for the final figures.
        out: folder to write; must not hold another run.
        config: of the dictionaries; or give its fields as keywords (`k=16, expansion=8`).
        tokens: how many to train on, special tokens not counted; a shorter text is repeated.
        layers: which layers; see `layer_sites`.
        read: module path or site to read, `{layer}` standing for the layer.
        write: module path or site to write.
        context_length: tokens the model reads at once, up to 256 by default.
        shuffle_tokens: tokens shuffled together, by default what 512 MB hold and at most 131,072.
        forward_precision: of the model's forward pass, by default `config.precision`.
        field: the field or column of the text, where documents have several.
        resume: go on from the newest checkpoint in `out`.
        checkpoint_seconds: how often to save.
        held_out_tokens: how many tokens of held-out text to measure on at the end.
        store_dtype: what the finished dictionaries are stored as; float16 halves their size.
        on_progress: called after every step.
        settings: fields of `TrainConfig`, where `config` is not given.

    Raises:
        ConfigError: settings that do not fit each other, the model or the run to resume.
        SiteError: the model has no such site.
        DataError: text that cannot be read or learned from.
        StorageError: the disk refuses; checkpoints saved before are whole.
        TrainingStoppedError: Ctrl-C or SIGTERM; a checkpoint has been saved.
    """
    out = Path(out)
    if config is not None and settings:
        raise ConfigError(f"give config or {', '.join(settings)}, not both")
    config = config or config_from_dict(TrainConfig, settings)
    text = open_text(data, field=field, seed=config.seed)
    _check_positive(tokens=tokens, shuffle_tokens=shuffle_tokens, held_out_tokens=held_out_tokens)
    plan = _plan(
        model,
        config,
        tokens=tokens,
        layers=layers,
        read=read,
        write=write,
        context_length=context_length,
        shuffle_tokens=shuffle_tokens,
        forward_precision=forward_precision or config.precision,
    )
    run = Run(plan, model, text.split("train"))
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    if (out / MANIFEST_NAME).exists():
        return _finished(out, run, resume=resume)
    begin(run, out, resume=resume)
    _advance(run, out, checkpoint_seconds, on_progress)
    return _finish(run, model, text, out, held_out_tokens=held_out_tokens, store_dtype=store_dtype)


def _plan(
    model: LanguageModel,
    config: TrainConfig,
    *,
    tokens: int,
    layers: Sequence[int] | None,
    read: str | None,
    write: str | None,
    context_length: int | None,
    shuffle_tokens: int | None,
    forward_precision: str,
) -> RunPlan:
    """The whole plan, every setting checked against the model."""
    if forward_precision not in ("float32", "bfloat16"):
        raise ConfigError(
            f"unknown forward precision {forward_precision!r}; use float32 or bfloat16"
        )
    sites = layer_sites(model, config.kind, layers=layers, read=read, write=write)
    widths = site_widths(model, [site for pair in sites.values() for site in pair])
    for pair in sites.values():
        config.features(widths[pair.write])
    shuffled = shuffle_tokens or tokens_to_shuffle(list(widths.values()))
    return RunPlan(
        config=config,
        total_tokens=tokens,
        sites=sites,
        context_length=context_length or min(LONGEST_CONTEXT, model.context_length),
        fill_batches=max(1, min(shuffled, tokens) // config.batch_tokens),
        autocast=forward_precision == "bfloat16",
    )


def _check_positive(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; give a positive number")


def _advance(
    run: Run,
    out: Path,
    checkpoint_seconds: float,
    on_progress: Callable[[TrainProgress], None] | None,
) -> None:
    """Train until the run is over or told to stop, and leave a checkpoint of that moment."""
    log = MetricsLog(out / METRICS)
    windows = {layer: Window(layer) for layer in run.plan.sites}
    warned = False

    def step() -> None:
        nonlocal warned
        for layer, metrics in run.advance().items():
            windows[layer].add(metrics)
        warned = warned or warn_of_repetition(run.stream.rows, run.plan.total_tokens)
        progress = _progress(run, windows)
        if run.steps % LOG_STEPS == 0:
            log.append(progress)
        if on_progress:
            on_progress(progress)

    keep_going(
        run,
        out,
        step,
        total_steps=run.plan.total_steps,
        total_tokens=run.plan.total_tokens,
        checkpoint_seconds=checkpoint_seconds,
    )


def _progress(run: Run, windows: dict[int, Window]) -> TrainProgress:
    total = run.plan.total_steps * run.plan.config.batch_tokens
    return TrainProgress(
        tokens=run.tokens,
        total_tokens=total,
        tokens_per_second=run.tokens_per_second,
        seconds_left=(total - run.tokens) / run.tokens_per_second,
        layers=tuple(window.figures() for window in windows.values()),
    )


def _finish(
    run: Run,
    model: LanguageModel,
    text: TextSource,
    out: Path,
    *,
    held_out_tokens: int,
    store_dtype: torch.dtype,
) -> TrainResult:
    """Measure the dictionaries, put them into `out` and delete the checkpoints."""
    dictionaries = run.dictionaries()
    held_out = text.split("heldout")
    fill = math.ceil(held_out_tokens / run.plan.config.batch_tokens)
    stream = replace(run.plan, fill_batches=fill).stream(model, held_out)
    figures = measure_dictionaries(dictionaries, stream, tokens=held_out_tokens)
    result = TrainResult(
        out=out,
        tokens=run.tokens,
        tokens_per_second=run.tokens_per_second,
        layers=tuple(figures),
        measured_on="training text" if held_out is text else "held-out text",
    )
    export = save_dictionaries(
        out / ".export",
        dictionaries,
        model_fingerprint=model.fingerprint(),
        config=run.identity,
        results=result.to_json(),
        seed=run.plan.config.seed,
        dtype=store_dtype,
    )
    put_in_place(export, out)
    return result


def _finished(out: Path, run: Run, *, resume: bool) -> TrainResult:
    """The result of a run that is already over, if it is the one asked for."""
    manifest = read_manifest(out, kind=ARTIFACT_KIND)
    if not resume:
        raise ConfigError(
            f"{out} already holds trained dictionaries; train into another folder or delete them"
        )
    check_identity(manifest.config["training"], run.identity, out=out)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    results = manifest.results
    return TrainResult(
        out=out,
        tokens=results["tokens"],
        tokens_per_second=results["tokens_per_second"],
        layers=tuple(LayerFidelity(**layer) for layer in results["layers"]),
        measured_on=results["measured_on"],
    )
