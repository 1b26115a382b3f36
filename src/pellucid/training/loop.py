"""Training from text to saved dictionaries: the shell around the steps."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid.core.config import config_from_dict
from pellucid.core.errors import ConfigError
from pellucid.core.manifest import MANIFEST_NAME, read_manifest
from pellucid.dictionaries.checkpoint import ARTIFACT_KIND, save_dictionaries
from pellucid.distributed.processes import ALONE, Processes
from pellucid.harvest.cache.use import CacheOrder
from pellucid.harvest.config import ForwardPrecision
from pellucid.harvest.fidelity import LayerFidelity, measure_dictionaries
from pellucid.harvest.rows import Packing
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.training.card import CARD_NAME, write_card
from pellucid.training.config import TrainConfig, check_positive
from pellucid.training.measure import Measurement
from pellucid.training.metrics import TrainProgress, Window
from pellucid.training.recorder import Recorder
from pellucid.training.resumable import (
    CHECKPOINTS,
    EXPORT,
    begin,
    check_interval,
    held,
    keep_going,
    put_in_place,
    warn_of_finished,
    warn_of_repetition,
)
from pellucid.training.run import Run, RunPlan, part_of
from pellucid.training.run_checkpoint import check_identity, each_part, has_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished run.

    Attributes:
        out: the folder of the dictionaries.
        tokens: trained on.
        tokens_per_second: of harvesting and training together.
        layers: figures by layer, measured when training was over.
        measured_on: "held-out text", or "training text" where the text was too short to split.
        excluded_tokens: left out of the training text for their high norm, by all processes.
    """

    out: Path
    tokens: int
    tokens_per_second: float
    layers: tuple[LayerFidelity, ...]
    measured_on: str
    excluded_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""
        return {
            "out": str(self.out),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "layers": [layer.to_json() for layer in self.layers],
            "measured_on": self.measured_on,
            "excluded_tokens": self.excluded_tokens,
        }


def train(
    model: LanguageModel,
    data: str | Path | TextSource | Sequence[str | Path | TextSource],
    out: str | Path,
    *,
    config: TrainConfig | None = None,
    tokens: int = 2_000_000,
    layers: Sequence[int] | None = None,
    read: str | None = None,
    write: str | None = None,
    context_length: int | None = None,
    shuffle_tokens: int | None = None,
    forward_precision: ForwardPrecision | None = None,
    packing: Packing = "documents",
    exclude_high_norm: float | None = None,
    cache: str | Path | None = None,
    cache_dtype: str | None = None,
    cache_order: CacheOrder = "text",
    field: str | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 300.0,
    held_out_tokens: int = 50_000,
    measure_every: int | None = None,
    track: Sequence[str] = (),
    store_dtype: torch.dtype = torch.float32,
    on_progress: Callable[[TrainProgress], None] | None = None,
    on_cache: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
    **settings: Any,
) -> TrainResult:
    """Train one dictionary a layer on a model's activations and save them.

    `out` holds `metrics.jsonl` and `checkpoints/` while the run goes on, and the dictionaries and a
    model card when it is over; the checkpoints are then deleted. A run that was stopped, by
    whatever means, goes on with `resume` and ends with the weights it would have had, bit for bit
    on one thread.

    Args:
        model: see `load_model`.
        data: text to train on, or several with weights, see `open_text`; part of it is held out
            for the final figures.
        out: folder to write; must not hold another run.
        config: of the dictionaries; or give its fields as keywords (`k=16, expansion=8`).
        tokens: how many to train on, special tokens not counted; a shorter text is repeated.
        layers: which layers; see `layer_sites`.
        read: module path or site to read, `{layer}` standing for the layer.
        write: module path or site to write.
        context_length: tokens the model reads at once, up to 256 by default.
        shuffle_tokens: tokens shuffled together, by default what 512 MB hold and at most 131,072.
        forward_precision: of the model's forward pass, by default `config.precision`.
        packing: "documents" or "packed" rows; see `HarvestConfig`.
        exclude_high_norm: a multiple of the median norm; see `HarvestConfig`.
        cache: folder of a cache of the activations, used if it is whole, completed if it is
            partial, made if it is absent.
        cache_dtype: what a new cache stores; see `through_cache`.
        cache_order: "text", as live training reads, or "shuffled" throughout the cache.
        field: the field or column of the text, where documents have several; "text" by default.
        resume: go on from the newest checkpoint in `out`.
        checkpoint_seconds: how often to save; 0 is after every step.
        held_out_tokens: how many tokens of held-out text to measure on at the end.
        measure_every: tokens between two measurements of quality, see `measure.Measurement`; it is
            not measured before the end if not given.
        track: names of trackers that draw the run's curves, see `tracking.TRACKERS`.
        store_dtype: what the finished dictionaries are stored as; float16 halves their size.
        on_progress: called after every step.
        on_cache: told how many tokens of how many are in the cache, while it is made.
        processes: that train together (`distributed.processes.joined`); by default this one alone.
        settings: fields of `TrainConfig`, where `config` is not given.

    Raises:
        ConfigError: settings that do not fit each other, the model or the run to resume.
        SiteError: the model has no such site.
        DataError: text that cannot be read or learned from.
        CheckpointError: the cache is damaged.
        StorageError: the disk refuses, or has no room for the cache; what was saved before is
            whole.
        TrainingStoppedError: Ctrl-C or SIGTERM; a checkpoint has been saved.
    """
    out = Path(out)
    if config is not None and settings:
        raise ConfigError(f"give config or {', '.join(settings)}, not both")
    config = (config or config_from_dict(TrainConfig, settings)).decided(model.device)
    if not resume:
        _check_unused(out)
    text = open_text(data, field=field, seed=config.seed)
    check_positive(tokens=tokens, shuffle_tokens=shuffle_tokens, held_out_tokens=held_out_tokens)
    _check_measured(measure_every, processes)
    check_interval(checkpoint_seconds)
    plan = RunPlan.of(
        model,
        config,
        tokens=tokens,
        layers=layers,
        read=read,
        write=write,
        context_length=context_length,
        shuffle_tokens=shuffle_tokens,
        forward_precision=forward_precision,
        packing=packing,
        exclude_high_norm=exclude_high_norm,
        feature_processes=processes.teams.features.size,
    )
    train_text = text.split("train")
    run = _run(plan, model, train_text, cache, cache_dtype, cache_order, on_cache, processes)
    measurement = None
    if measure_every is not None:
        measurement = Measurement(model, text.split("heldout"), plan.sites, every=measure_every)
    recorder = Recorder(out, measurement=measurement, track=track) if processes.first else None
    with held(out, processes):
        if not (out / MANIFEST_NAME).exists():
            begin(run, out, resume=resume)
            _advance(run, out, checkpoint_seconds, recorder, on_progress)
            excluded = run.excluded_tokens()
            if processes.first:
                _finish(
                    *(run, model, text, out),
                    held_out_tokens=held_out_tokens,
                    excluded_tokens=excluded,
                    store_dtype=store_dtype,
                )
            processes.wait()
        elif processes.first:
            warn_of_finished(out)
        if processes.first and not (out / CARD_NAME).exists():
            write_card(out, model=model.name, data=text.name)
        return _finished(out, run)


def _run(
    plan: RunPlan,
    model: LanguageModel,
    text: TextSource,
    cache: str | Path | None,
    dtype: str | None,
    order: CacheOrder,
    on_cache: Callable[[int, int], None] | None,
    processes: Processes,
) -> Run:
    """The run over a text's activations, live or from a cache that one process makes first."""
    layers = plan.layers_of(processes)
    if cache is None:
        if dtype is not None or order != "text":
            raise ConfigError("cache_dtype and cache_order are of a cache; give its folder too")
        return Run(plan, model, text, plan.live(model, text, layers), processes)
    options = {"folder": cache, "dtype": dtype, "order": order, "on_progress": on_cache}
    live = plan.live(model, text)
    if processes.first:
        plan.cached(live, layers, **options)
    processes.wait()
    return Run(plan, model, text, plan.cached(live, layers, **options), processes)


def _check_measured(every: int | None, processes: Processes) -> None:
    check_positive(measure_every=every)
    if every is not None and processes.layers.size * processes.teams.features.size > 1:
        raise ConfigError(
            f"measure_every needs whole dictionaries of all layers in a process, which the layout "
            f"{processes.layout} spreads; leave it out, or spread data alone"
        )


def _check_unused(out: Path) -> None:
    if (out / MANIFEST_NAME).exists():
        raise ConfigError(
            f"{out} already holds trained dictionaries; train into another folder or delete them"
        )
    if has_checkpoint(out / CHECKPOINTS):
        raise ConfigError(
            f"{out} already holds a run that is not finished; resume it, or train into another "
            "folder"
        )


def _advance(
    run: Run,
    out: Path,
    checkpoint_seconds: float,
    recorder: Recorder | None,
    on_progress: Callable[[TrainProgress], None] | None,
) -> None:
    """Train until the run is over or told to stop, and leave a checkpoint of that moment."""
    windows = {layer: Window(layer) for layer in run.plan.sites}
    warned = False

    def step() -> None:
        nonlocal warned
        for layer, metrics in run.advance().items():
            windows[layer].add(metrics)
        warned = warned or warn_of_repetition(run.stream.source, run.plan.total_tokens)
        progress = _progress(run, windows)
        if recorder is not None:
            progress = recorder.record(progress, run)
            if on_progress:
                on_progress(progress)

    with nullcontext() if recorder is None else recorder.following(run):
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
    excluded_tokens: int,
    store_dtype: torch.dtype,
) -> TrainResult:
    """Measure the dictionaries, put them into `out` and delete the checkpoints."""
    saved = None
    if run.processes.mesh is not None:
        saved = each_part(out / CHECKPOINTS, [part_of(layer) for layer in run.plan.sites])
    dictionaries = run.finish(saved)
    held_out = text.split("heldout")
    stream = replace(run.plan, fill_batches=1).stream(run.plan.live(model, held_out))
    figures = measure_dictionaries(dictionaries, stream, tokens=held_out_tokens)
    result = TrainResult(
        out=out,
        tokens=run.tokens,
        tokens_per_second=run.tokens_per_second,
        layers=tuple(figures),
        measured_on="training text" if held_out is text else "held-out text",
        excluded_tokens=excluded_tokens,
    )
    export = save_dictionaries(
        out / EXPORT,
        dictionaries,
        model_fingerprint=model.fingerprint(),
        config=run.identity,
        results=result.to_json(),
        seed=run.plan.config.seed,
        dtype=store_dtype,
    )
    put_in_place(export, out)
    return result


def _finished(out: Path, run: Run) -> TrainResult:
    """The result of a run that is already over, if it is the one asked for."""
    manifest = read_manifest(out, kind=ARTIFACT_KIND)
    check_identity(manifest.config["training"], run.identity, out=out)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    results = manifest.results
    return TrainResult(
        out=out,
        tokens=results["tokens"],
        tokens_per_second=results["tokens_per_second"],
        layers=tuple(LayerFidelity(**layer) for layer in results["layers"]),
        measured_on=results["measured_on"],
        excluded_tokens=results["excluded_tokens"],
    )
