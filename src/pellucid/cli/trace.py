"""`pellucid trace`: attribution graphs, checked by intervention."""

import time
from pathlib import Path
from typing import Any

from pellucid.cli import options
from pellucid.cli import trace_options as given
from pellucid.cli.run import Run, peak_megabytes
from pellucid.cli.values import parse_ids
from pellucid.core.errors import ConfigError, PromptError


def trace(
    run: Run,
    model: options.Model,
    out: given.Out,
    prompt: given.Prompt = None,
    dictionaries: options.Dictionaries = None,
    format: given.Format = "pellucid",
    html: given.Html = None,
    target: given.Targets = None,
    max_features: given.MaxFeatures = 4096,
    epsilon: given.Epsilon = 0.0,
    missing: given.MissingLayers = "refuse",
    precision: given.Precision = "float32",
    max_memory: given.MaxMemory = None,
    lazy: given.Lazy = False,
    prompt_ids: given.PromptIds = None,
    prompts: given.Prompts = None,
    causal: given.Causal = True,
    attention: given.Attention = False,
    report: given.Report = None,
    paraphrases: given.Paraphrases = None,
    compare: given.Compare = None,
) -> None:
    """Trace how a model arrives at its next token.

    Writes an attribution graph of features, errors, tokens and biases, and says how far its
    predictions agree with interventions on the real model. With --prompts, writes the graphs of
    many prompts as Parquet; under torchrun every process takes its share, and a run that was
    stopped goes on where it was.
    """
    from pellucid.attribution.memory import parse_bytes
    from pellucid.cli.prompts import trace_file
    from pellucid.cli.report import Subject, plan_report
    from pellucid.cli.targets import parse_target

    started = time.perf_counter()
    many = {"--html": html, "--report": report, "PROMPT": prompt, "--prompt-ids": prompt_ids}
    what = _prompt(prompt, prompt_ids) if prompts is None else _alone("--prompts", many)
    plan = plan_report(report, paraphrases, compare)
    settings: dict[str, Any] = {
        "max_features": max_features,
        "epsilon": epsilon,
        "missing": missing,
        "precision": precision,
        "max_memory": None if max_memory is None else parse_bytes(max_memory),
    }
    if target:
        settings["targets"] = [parse_target(text) for text in target]
    loaded, set_of = _load(run, model, dictionaries, lazy=lazy)
    settings["missing"] = "neurons" if set_of is None else missing
    if prompts is not None:
        trace_file(
            run, loaded, set_of, prompts, out, causal=causal, attention=attention, **settings
        )
        return
    subject = Subject(model=loaded, prompt=what, dictionaries=set_of, settings=settings)
    with run.counter("features traced") as on_progress:
        graph = subject.traced(
            what, set_of, causal=causal, attention=attention, seed=run.seed, on_progress=on_progress
        )
    _finish(
        run, graph, plan, subject, {format: out} | ({} if html is None else {"html": html}), started
    )


def _finish(
    run: Run, graph: Any, plan: Any, subject: Any, paths: dict[str, Path], started: float
) -> None:
    """Write the graph and what was asked for beside it, and report."""
    from pellucid.cli.artifacts import write_graph
    from pellucid.cli.report import report_on
    from pellucid.cli.words import describe_graph, graph_record

    figures: dict[str, Any] = {}
    written: dict[str, str] = {}
    if plan is not None:
        graph, figures = report_on(run, plan, graph, subject)
        written["report"] = str(plan.path)
    files = write_graph(graph, paths) | written
    cost = {"seconds": time.perf_counter() - started, "peak_mb": peak_megabytes()}
    record = graph_record(graph) | figures | cost | {"files": files}
    run.report(record, *describe_graph(graph), *(f"wrote {path}" for path in files.values()))


def _load(run: Run, model: str, dictionaries: str | None, *, lazy: bool) -> tuple[Any, Any]:
    """The model and its dictionaries; None for the model's own neurons."""
    from pellucid import api

    name = options.or_specimen(dictionaries, model, "--dictionaries")
    loaded = api.load_model(model, device=run.device)
    if name == given.NEURONS:
        return loaded, None
    return loaded, api.load_dictionaries(name, device=run.device, lazy=lazy, model=loaded)


def _alone(option: str, others: dict[str, Any]) -> str:
    """Nothing else is given that is for a single prompt."""
    for name, value in others.items():
        if value is not None:
            raise ConfigError(f"{name} is for one prompt and cannot go with {option}; leave it out")
    return ""


def _prompt(text: str | None, ids: str | None) -> str | list[int]:
    if (text is None) == (ids is None):
        how = "neither was" if text is None else "both were"
        raise PromptError(f"give either PROMPT or --prompt-ids; {how} given")
    return options.parsed("--prompt-ids", parse_ids, ids) if text is None else text
