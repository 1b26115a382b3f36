"""`pellucid safety`: from a contrast set to a calibrated, audited guard, stage by stage."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count
from pellucid.core.errors import ConfigError

if TYPE_CHECKING:
    from pellucid.cli.progress import Stages
    from pellucid.safety.workflow import Workflow

Contrast = Annotated[
    Path | None,
    typer.Option(
        "--contrast",
        metavar="FILE",
        help="JSONL of prompt, label (harmful or benign), and maybe group, part, behaviour, "
        "answer; the specimen has its own.",
    ),
]
Refusals = Annotated[
    Path | None,
    typer.Option(
        "--refusals", metavar="FILE", help="Phrases that begin a refusal, one a line; English ones "
        "if not given."
    ),
]  # fmt: skip
Size = Annotated[
    int,
    typer.Option(
        "--size", parser=parse_count, metavar="N", help="Harmful requests to fit on (specimen)."
    ),
]
Sites = Annotated[
    list[str] | None,
    typer.Option("--site", metavar="SITE", help="Where to probe, as in mlp_in@2; repeatable."),
]
NewTokens = Annotated[
    int,
    typer.Option(
        "--max-new-tokens", parser=parse_count, metavar="N", help="The most tokens of an answer."
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--fpr",
        metavar="SHARE",
        help="Share of benign traffic the gate may stop; .001, or .01 where that costs recall.",
    ),
]
Prompts = Annotated[
    Path,
    typer.Option("--prompts", metavar="FILE", help="One prompt a line, or JSONL with `prompt`."),
]
Trail = Annotated[
    Path | None,
    typer.Option(
        "--trail", metavar="FILE", help="Audit trail to append to; DIR/trail.jsonl if not given."
    ),
]


def group() -> None:
    """Find why a model does what it ought to refuse, and guard against it."""


def discover(
    run: Run,
    model: options.Model,
    out: options.OutFolder,
    contrast: Contrast = None,
    dictionaries: options.Dictionaries = None,
    refusals: Refusals = None,
    size: Size = 500,
    site: Sites = None,
    max_new_tokens: NewTokens = 12,
) -> None:
    """Find what sets answered harmful requests apart, and which features do it.

    Runs the model on a contrast set, judges its answers, and fits a raw-activation probe, a sparse
    feature probe and a bag of words, all measured on held-out groups. Candidate features are
    ranked by their effect on the output. For the specimen the contrast set is made from its corpus;
    it says what is harmful, never what the trigger is.
    """
    from pellucid.cli.safety_words import describe_discovery
    from pellucid.core.types import parse_site
    from pellucid.safety.judge import RefusalJudge, read_judge
    from pellucid.safety.requests import read_requests
    from pellucid.safety.specimen_sets import specimen_judge, specimen_requests

    started = time.perf_counter()
    own = model == options.SPECIMEN and contrast is None
    if contrast is None and not own:
        raise ConfigError(
            f"--contrast is missing; only the model {options.SPECIMEN!r} has a contrast set of its "
            f"own, {model!r} does not"
        )
    requests = specimen_requests(size, run.seed) if contrast is None else read_requests(contrast)
    if refusals is not None:
        judge = read_judge(refusals)
    else:
        judge = specimen_judge() if model == options.SPECIMEN else RefusalJudge()
    sites = None if site is None else [parse_site(text) for text in site]
    with run.stages() as on_progress:
        flow = _workflow(run, model, out, dictionaries, on_progress)
        record = flow.discover(requests, judge, sites=sites, max_new_tokens=max_new_tokens)
    _report(run, flow, record, started, *describe_discovery(record))


def validate(
    run: Run,
    model: options.Model,
    out: options.OutFolder,
    dictionaries: options.Dictionaries = None,
) -> None:
    """Edit what discovery found and watch the behaviour, beside matched random controls."""
    from pellucid.cli.safety_words import describe_validation

    started = time.perf_counter()
    with run.stages() as on_progress:
        flow = _workflow(run, model, out, dictionaries, on_progress)
        record = flow.validate()
    _report(run, flow, record, started, *describe_validation(record))


def calibrate(
    run: Run,
    model: options.Model,
    out: options.OutFolder,
    dictionaries: options.Dictionaries = None,
    fpr: Rate = None,
) -> None:
    """Set the gate's threshold on benign traffic, and choose what is done behind it."""
    from pellucid.cli.safety_words import describe_calibration

    started = time.perf_counter()
    with run.stages() as on_progress:
        flow = _workflow(run, model, out, dictionaries, on_progress)
        record = flow.calibrate(fpr=fpr)
    shown = {key: value for key, value in record.items() if key != "guard"}
    _report(run, flow, shown, started, *describe_calibration(record))


def audit(
    run: Run,
    model: options.Model,
    out: options.OutFolder,
    dictionaries: options.Dictionaries = None,
) -> None:
    """Measure what the guard stops and what it costs, on held-out requests.

    Attack success, over-refusal, divergence and perplexity on benign text, with intervals, beside
    the same edits without the gate; and overlap with the refusal direction.
    """
    from pellucid.cli.safety_words import describe_audit

    started = time.perf_counter()
    with run.stages() as on_progress:
        flow = _workflow(run, model, out, dictionaries, on_progress)
        record = flow.audit()
    _report(run, flow, record, started, *describe_audit(record))


def guard(
    run: Run,
    model: options.Model,
    out: options.OutFolder,
    prompts: Prompts,
    dictionaries: options.Dictionaries = None,
    trail: Trail = None,
    max_new_tokens: NewTokens = 16,
) -> None:
    """Answer prompts behind the gate, row by row, and write an audit trail."""
    from pellucid.cli.safety_words import describe_guarded
    from pellucid.safety.requests import read_prompts

    started = time.perf_counter()
    texts = read_prompts(prompts)
    trail = out / "trail.jsonl" if trail is None else trail
    with run.stages() as on_progress:
        flow = _workflow(run, model, out, dictionaries, on_progress)
        made = flow.guard().answer(
            texts, max_new_tokens=max_new_tokens, trail=trail, progress=on_progress
        )
    record = {
        "rows": [
            {"prompt": prompt, "answer": text} | entry
            for prompt, text, entry in zip(texts, made.texts, made.entries, strict=True)
        ],
        "guarded": made.actions.count("guarded"),
        "receipts": [receipt.to_json() for receipt in made.receipts],
        "files": {"trail": str(trail)},
    }
    record |= flow.headline() | {"seconds": time.perf_counter() - started}
    run.report(record, *describe_guarded(texts, made), f"wrote {trail}")


def _workflow(
    run: Run, model: str, out: Path, dictionaries: str | None, on_progress: "Stages"
) -> "Workflow":
    from pellucid import api
    from pellucid.safety.workflow import Workflow

    if dictionaries is None and model == options.SPECIMEN:
        dictionaries = options.SPECIMEN
    loaded = api.load_model(model, device=run.device)
    features = (
        None
        if dictionaries is None
        else api.load_dictionaries(dictionaries, device=run.device, model=loaded)
    )
    return Workflow(out, loaded, features, seed=run.seed, progress=on_progress)


def _report(
    run: Run, flow: "Workflow", details: dict[str, Any], started: float, *shown: Any
) -> None:
    """The headline keys, the same for every stage, and the stage's own figures."""
    record = flow.headline() | {"details": details, "out": str(flow.root)}
    run.report(record | {"seconds": time.perf_counter() - started}, *shown)
