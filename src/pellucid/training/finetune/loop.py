"""Fine-tuning from a set of dictionaries to a better one: the shell around the steps."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pellucid.core.config import config_from_dict
from pellucid.core.errors import ConfigError
from pellucid.core.manifest import MANIFEST_NAME, read_manifest
from pellucid.dictionaries.checkpoint import ARTIFACT_KIND, save_dictionaries
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.evaluation.rows import EvaluationRows
from pellucid.harvest.fidelity import LayerFidelity
from pellucid.harvest.live import FORWARD_TOKENS
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.training.finetune.comparison import Comparison, compare
from pellucid.training.finetune.config import FinetuneConfig
from pellucid.training.finetune.run import FinetunePlan, FinetuneRun, StepFigures
from pellucid.training.finetune.subject import check_subject
from pellucid.training.metrics import MetricsLog
from pellucid.training.recorder import LOG_STEPS, METRICS_NAME
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
from pellucid.training.run import LONGEST_CONTEXT
from pellucid.training.run_checkpoint import check_identity

DEFAULT_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneProgress:
    """How far a run is.

    Attributes:
        tokens: trained on so far.
        total_tokens: to train on in all.
        tokens_per_second: over the whole run.
        seconds_left: at that rate.
        figures: of the last step.
    """

    tokens: int
    total_tokens: int
    tokens_per_second: float
    seconds_left: float
    figures: StepFigures

    def to_json(self) -> dict[str, Any]:
        """The record of the log."""
        rate = round(self.tokens_per_second, 1)
        return {"tokens": self.tokens, "tokens_per_second": rate} | self.figures.to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """A finished run.

    Attributes:
        out: the folder of the dictionaries.
        tokens: trained on.
        tokens_per_second: of the whole run.
        measured_on: "held-out text", or "training text" where the text was too short to split.
        comparison: before and after.
    """

    out: Path
    tokens: int
    tokens_per_second: float
    measured_on: str
    comparison: Comparison

    @property
    def layers(self) -> tuple[LayerFidelity, ...]:
        """Figures by layer, after."""
        return tuple(layer.after for layer in self.comparison.layers)

    def to_json(self) -> dict[str, Any]:
        """Its plain form, under the keys of `TrainResult` and `finetune`."""
        return {
            "out": str(self.out),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "layers": [layer.to_json() for layer in self.layers],
            "measured_on": self.measured_on,
            "finetune": self.comparison.to_json(),
        }


def finetune(
    model: LanguageModel,
    dictionaries: DictionarySet,
    data: str | Path | TextSource | Sequence[str | Path | TextSource],
    out: str | Path,
    *,
    config: FinetuneConfig | None = None,
    tokens: int = DEFAULT_TOKENS,
    context_length: int | None = None,
    forward_tokens: int = FORWARD_TOKENS,
    field: str | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 300.0,
    held_out_tokens: int = 50_000,
    store_dtype: torch.dtype = torch.float32,
    on_progress: Callable[[FinetuneProgress], None] | None = None,
    **settings: Any,
) -> FinetuneResult:
    """Train dictionaries end to end: all MLPs replaced, towards the original model's predictions.

    Neither the model nor `dictionaries` is changed. `out` is used as by `train`: a run that was
    stopped goes on with `resume` and ends with the weights it would have had, bit for bit on one
    thread.

    Args:
        model: see `load_model`.
        dictionaries: transcoders, skip transcoders or a cross-layer transcoder of it.
        data: text to train on, or several with weights, see `open_text`; part of it is held out
            for the comparison.
        out: folder to write; must not hold another run.
        config: the settings; or give its fields as keywords (`learning_rate=1e-4`).
        tokens: how many to train on, special tokens not counted; a shorter text is repeated.
        context_length: tokens the model reads at once, up to 256 by default.
        forward_tokens: positions in one forward pass; fewer take less memory, and the gradients of
            a step's passes are added up.
        field: the field or column of the text, where documents have several; "text" by default.
        resume: go on from the newest checkpoint in `out`.
        checkpoint_seconds: how often to save; 0 is after every step.
        held_out_tokens: how many tokens of held-out text to compare on at the end.
        store_dtype: what the finished dictionaries are stored as.
        on_progress: called after every step.
        settings: fields of `FinetuneConfig`, where `config` is not given.

    Raises:
        ConfigError: settings that do not fit each other, the model or the run to resume.
        DictionaryError: dictionaries that belong to another model, or cannot stand in for MLPs.
        DataError: text that cannot be read or learned from.
        StorageError: the disk refuses; checkpoints saved before are whole.
        TrainingStoppedError: Ctrl-C or SIGTERM; a checkpoint has been saved.
    """
    out = Path(out)
    if config is not None and settings:
        raise ConfigError(f"give config or {', '.join(settings)}, not both")
    config = config or config_from_dict(FinetuneConfig, settings)
    for name, count in (
        ("tokens", tokens),
        ("forward_tokens", forward_tokens),
        ("held_out_tokens", held_out_tokens),
    ):
        if count < 1:
            raise ConfigError(f"{name} is {count}; give a positive number")
    check_interval(checkpoint_seconds)
    check_subject(model, dictionaries)
    text = open_text(data, field=field, seed=config.seed)
    plan = FinetunePlan(
        config=config,
        total_tokens=tokens,
        context_length=context_length or min(LONGEST_CONTEXT, model.context_length),
        forward_tokens=forward_tokens,
    )
    run = FinetuneRun(plan, model, dictionaries, text.split("train"))
    with held(out, run.processes):
        if (out / MANIFEST_NAME).exists():
            return _finished(out, run, resume=resume)
        begin(run, out, resume=resume)
        _advance(run, out, checkpoint_seconds, on_progress)
        return _finish(
            run, model, text, out, held_out_tokens=held_out_tokens, store_dtype=store_dtype
        )


def _advance(
    run: FinetuneRun,
    out: Path,
    checkpoint_seconds: float,
    on_progress: Callable[[FinetuneProgress], None] | None,
) -> None:
    """Train until the run is over or told to stop, and leave a checkpoint of that moment."""
    log, plan = MetricsLog(out / METRICS_NAME), run.plan
    log.truncate(run.tokens)
    warned = False

    def step() -> None:
        nonlocal warned
        figures = run.advance()
        warned = warned or warn_of_repetition(run.rows, plan.total_tokens)
        share_left = (plan.total_steps - run.steps) / run.steps
        progress = FinetuneProgress(
            tokens=run.tokens,
            total_tokens=run.tokens + round(run.tokens * share_left),
            tokens_per_second=run.tokens_per_second,
            seconds_left=run.seconds * share_left,
            figures=figures,
        )
        if run.steps % LOG_STEPS == 0:
            log.append(progress)
        if on_progress:
            on_progress(progress)

    keep_going(
        run,
        out,
        step,
        total_steps=plan.total_steps,
        total_tokens=plan.total_tokens,
        checkpoint_seconds=checkpoint_seconds,
    )


def _finish(
    run: FinetuneRun,
    model: LanguageModel,
    text: TextSource,
    out: Path,
    *,
    held_out_tokens: int,
    store_dtype: torch.dtype,
) -> FinetuneResult:
    """Compare, put the dictionaries into `out` and delete the checkpoints."""
    held_out = text.split("heldout")
    before = run.subject.start
    trained = run.subject.finished()
    comparison = compare(
        model,
        before,
        DictionarySet(before.name, trained),
        EvaluationRows(held_out, model, tokens=held_out_tokens),
        EvaluationRows(text.split("train"), model, tokens=held_out_tokens),
        seed=run.plan.config.seed,
    )
    result = FinetuneResult(
        out=out,
        tokens=run.tokens,
        tokens_per_second=run.tokens_per_second,
        measured_on="training text" if held_out is text else "held-out text",
        comparison=comparison,
    )
    export = save_dictionaries(
        out / EXPORT,
        trained,
        model_fingerprint=model.fingerprint(),
        config=run.identity,
        results=result.to_json(),
        seed=run.plan.config.seed,
        dtype=store_dtype,
    )
    put_in_place(export, out)
    return result


def _finished(out: Path, run: FinetuneRun, *, resume: bool) -> FinetuneResult:
    """The result of a run that is already over, if it is the one asked for."""
    manifest = read_manifest(out, kind=ARTIFACT_KIND)
    if not resume:
        raise ConfigError(
            f"{out} already holds trained dictionaries; train into another folder or delete them"
        )
    check_identity(manifest.config["training"], run.identity, out=out)
    warn_of_finished(out)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    results = manifest.results
    return FinetuneResult(
        out=out,
        tokens=results["tokens"],
        tokens_per_second=results["tokens_per_second"],
        measured_on=results["measured_on"],
        comparison=Comparison.from_json(results["finetune"]),
    )
