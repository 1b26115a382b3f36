"""Training from text to saved dictionaries: the shell around the steps."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from pellucid.core.config import config_from_dict
from pellucid.core.errors import ConfigError, PellucidError
from pellucid.core.files import storage_errors
from pellucid.core.manifest import MANIFEST_NAME, read_manifest
from pellucid.dictionaries.checkpoint import ARTIFACT_KIND, save_dictionaries
from pellucid.harvest.fidelity import LayerFidelity, measure_dictionaries
from pellucid.harvest.live import site_widths, tokens_to_shuffle
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.training.card import CARD_NAME, write_card
from pellucid.training.config import TrainConfig
from pellucid.training.interrupt import graceful_stop
from pellucid.training.measure import Measurement
from pellucid.training.metrics import TrainProgress, Window
from pellucid.training.recorder import Recorder
from pellucid.training.run import Run, RunPlan
from pellucid.training.run_checkpoint import (
    check_identity,
    has_checkpoint,
    load_newest,
    save_checkpoint,
)
from pellucid.training.sites import layer_sites

logger = logging.getLogger(__name__)

LONGEST_CONTEXT = 256
"""Tokens of text the model reads at once, unless its context is shorter or another is asked for."""
_CHECKPOINTS = "checkpoints"


class TrainingStoppedError(PellucidError):
    """Training was interrupted; a checkpoint holds what it reached."""

    exit_code = 130


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
    measure_every: int | None = None,
    track: Sequence[str] = (),
    store_dtype: torch.dtype = torch.float32,
    on_progress: Callable[[TrainProgress], None] | None = None,
    **settings: Any,
) -> TrainResult:
    """Train one dictionary a layer on a model's activations and save them.

    `out` holds `metrics.jsonl` and `checkpoints/` while the run goes on, and the dictionaries and a
    model card when it is over; the checkpoints are then deleted. A run that was stopped, by
    whatever means, goes on with `resume` and ends with the weights it would have had, bit for bit
    on one thread.

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
        measure_every: tokens between two measurements of quality, see `measure.Measurement`; it is
            not measured before the end if not given.
        track: names of trackers that draw the run's curves, see `tracking.TRACKERS`.
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
    _check_positive(measure_every=measure_every)
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
    measurement = None
    if measure_every is not None:
        measurement = Measurement(model, text.split("heldout"), plan.sites, every=measure_every)
    recorder = Recorder(out, measurement=measurement, track=track)
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    if (out / MANIFEST_NAME).exists():
        result = _finished(out, run, resume=resume)
    else:
        _begin(run, out, resume=resume)
        _advance(run, out, checkpoint_seconds, recorder, on_progress)
        result = _finish(
            run, model, text, out, held_out_tokens=held_out_tokens, store_dtype=store_dtype
        )
    if not (out / CARD_NAME).exists():
        write_card(out, model=model.name, data=text.name)
    return result


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


def _begin(run: Run, out: Path, *, resume: bool) -> None:
    """Put the run where it has to start: at its beginning, or at the newest checkpoint."""
    folder = out / _CHECKPOINTS
    if has_checkpoint(folder):
        if not resume:
            raise ConfigError(
                f"{out} already holds a run that is not finished; resume it, or train into "
                "another folder"
            )
        checkpoint = load_newest(folder)
        check_identity(checkpoint.identity, run.identity, out=out)
        run.restore(checkpoint)
    elif resume:
        logger.warning("%s holds no checkpoint yet; starting from the beginning", out)


def _advance(
    run: Run,
    out: Path,
    checkpoint_seconds: float,
    recorder: Recorder,
    on_progress: Callable[[TrainProgress], None] | None,
) -> None:
    """Train until the run is over or told to stop, and leave a checkpoint of that moment."""
    windows = {layer: Window(layer) for layer in run.plan.sites}
    first, saved, warned = run.steps, time.monotonic(), False
    with graceful_stop() as stop, recorder.following(run):
        while run.steps < run.plan.total_steps and not stop.asked:
            for layer, metrics in run.advance().items():
                windows[layer].add(metrics)
            warned = warned or _warn_of_repetition(run)
            progress = recorder.record(_progress(run, windows), run)
            if on_progress:
                on_progress(progress)
            if time.monotonic() - saved >= checkpoint_seconds:
                save_checkpoint(out / _CHECKPOINTS, run.checkpoint())
                saved = time.monotonic()
        if run.steps > first:
            save_checkpoint(out / _CHECKPOINTS, run.checkpoint())
    if stop.asked:
        raise TrainingStoppedError(
            f"training stopped at {run.tokens:,} of {run.plan.total_tokens:,} tokens; a checkpoint "
            f"is in {out}: the same command with --resume goes on from it"
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


def _warn_of_repetition(run: Run) -> bool:
    """Whether the text has been read to its end; if so, say how often it will be read."""
    rows = run.stream.rows
    if rows.tokens_a_reading is None:
        return False
    if rows.tokens_a_reading < run.plan.total_tokens:
        logger.warning(
            "the text of %s has %s tokens: it is repeated %d times to train on %s",
            rows.source.name,
            f"{rows.tokens_a_reading:,}",
            math.ceil(run.plan.total_tokens / rows.tokens_a_reading),
            f"{run.plan.total_tokens:,}",
        )
    return True


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
    with storage_errors(out):
        files = sorted(export.iterdir(), key=lambda file: file.name == MANIFEST_NAME)
        for file in files:  # the manifest last: it makes the set whole
            file.replace(out / file.name)
        export.rmdir()
        shutil.rmtree(out / _CHECKPOINTS)
    return result


def _finished(out: Path, run: Run, *, resume: bool) -> TrainResult:
    """The result of a run that is already over, if it is the one asked for."""
    manifest = read_manifest(out, kind=ARTIFACT_KIND)
    if not resume:
        raise ConfigError(
            f"{out} already holds trained dictionaries; train into another folder or delete them"
        )
    check_identity(manifest.config["training"], run.identity, out=out)
    shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    results = manifest.results
    return TrainResult(
        out=out,
        tokens=results["tokens"],
        tokens_per_second=results["tokens_per_second"],
        layers=tuple(LayerFidelity(**layer) for layer in results["layers"]),
        measured_on=results["measured_on"],
    )
