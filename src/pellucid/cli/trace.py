"""`pellucid trace`: one prompt's attribution graph, checked by intervention."""

import time
from pathlib import Path
from typing import Annotated, Literal

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
    attention: Annotated[
        bool,
        typer.Option(
            "--attention", help="Say which heads carry the edges, and why they look there."
        ),
    ] = False,
) -> None:
    """Trace how a model arrives at its next token.

    Writes an attribution graph of features, errors, tokens and biases, and says how far its
    predictions agree with interventions on the real model.
    """
    from pellucid import api
    from pellucid.attribution.trace import trace as attribute
    from pellucid.cli.artifacts import write_graph
    from pellucid.cli.words import describe_graph, graph_record

    started = time.perf_counter()
    what = _prompt(prompt, prompt_ids)
    dictionaries = options.or_specimen(dictionaries, model, "--dictionaries")
    loaded = api.load_model(model, device=run.device)
    with run.counter("features traced") as on_progress:
        graph = attribute(
            loaded,
            what,
            api.load_dictionaries(dictionaries, device=run.device),
            max_features=max_features,
            epsilon=epsilon,
            causal=causal,
            attention=attention,
            seed=run.seed,
            on_progress=on_progress,
        )
    files = write_graph(graph, {format: out} | ({} if html is None else {"html": html}))
    record = graph_record(graph) | {
        "seconds": time.perf_counter() - started,
        "peak_mb": peak_megabytes(),
        "files": files,
    }
    run.report(record, *describe_graph(graph), *(f"wrote {path}" for path in files.values()))


def _prompt(text: str | None, ids: str | None) -> str | list[int]:
    if (text is None) == (ids is None):
        given = "neither was" if text is None else "both were"
        raise PromptError(f"give either PROMPT or --prompt-ids; {given} given")
    return options.parsed("--prompt-ids", parse_ids, ids) if text is None else text
