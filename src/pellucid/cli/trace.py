"""`pellucid trace`: one prompt's attribution graph, checked by intervention."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pellucid.cli import options
from pellucid.cli.run import Run, peak_megabytes
from pellucid.cli.values import parse_count, parse_ids
from pellucid.core.errors import PromptError

GraphFormat = Literal["pellucid", "neuronpedia"]


def trace(
    run: Run,
    model: options.Model,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.")],
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Text whose next token is explained.")
    ] = None,
    dictionaries: options.Dictionaries = None,
    format: Annotated[
        GraphFormat, typer.Option("--format", help="What to write to --out.")
    ] = "pellucid",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write an offline page.")
    ] = None,
    max_features: Annotated[
        int,
        typer.Option(
            "--max-features", parser=parse_count, metavar="N", help="The most features to keep."
        ),
    ] = 4096,
    epsilon: Annotated[
        float,
        typer.Option("--epsilon", help="Stop when this share of influence is unexplored."),
    ] = 0.0,
    prompt_ids: Annotated[
        str | None, typer.Option("--prompt-ids", metavar="1,2,3", help="Token ids for PROMPT.")
    ] = None,
    causal: Annotated[
        bool, typer.Option("--causal/--no-causal", help="Check the top features by intervention.")
    ] = True,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Also write how far to trust it, as a page."),
    ] = None,
    paraphrases: Annotated[
        Path | None,
        typer.Option("--paraphrases", metavar="FILE", help="Other wordings for it, one a line."),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", metavar="DICTS", help="Others for it, or neurons; repeatable."),
    ] = None,
) -> None:
    """Trace how a model arrives at its next token.

    Writes an attribution graph of features, errors, tokens and biases, and says how far its
    predictions agree with interventions on the real model.
    """
    from pellucid import api
    from pellucid.cli.artifacts import write_graph
    from pellucid.cli.report import Subject, plan_report, report_on
    from pellucid.cli.words import describe_graph, graph_record

    started = time.perf_counter()
    what = _prompt(prompt, prompt_ids)
    plan = plan_report(report, paraphrases, compare)
    dictionaries = options.or_specimen(dictionaries, model, "--dictionaries")
    subject = Subject(
        model=api.load_model(model, device=run.device),
        prompt=what,
        dictionaries=api.load_dictionaries(dictionaries, device=run.device),
        max_features=max_features,
        epsilon=epsilon,
    )
    with run.counter("features traced") as on_progress:
        graph = subject.traced(
            what, subject.dictionaries, causal=causal, seed=run.seed, on_progress=on_progress
        )
    figures: dict[str, Any] = {}
    written: dict[str, str] = {}
    if plan is not None:
        graph, figures = report_on(run, plan, graph, subject)
        written["report"] = str(plan.path)
    files = write_graph(graph, {format: out} | ({} if html is None else {"html": html})) | written
    cost = {"seconds": time.perf_counter() - started, "peak_mb": peak_megabytes()}
    record = graph_record(graph) | figures | cost | {"files": files}
    run.report(record, *describe_graph(graph), *(f"wrote {path}" for path in files.values()))


def _prompt(text: str | None, ids: str | None) -> str | list[int]:
    if (text is None) == (ids is None):
        given = "neither was" if text is None else "both were"
        raise PromptError(f"give either PROMPT or --prompt-ids; {given} given")
    return options.parsed("--prompt-ids", parse_ids, ids) if text is None else text
