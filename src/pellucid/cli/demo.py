"""`pellucid demo`: the whole path on the packaged model, ending in plain words."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.options import SPECIMEN
from pellucid.cli.run import Run

PROMPT = "the capital of the state containing dallas is"
FIDELITY_TOKENS = 12_000
MEANING_TOKENS = 40_000


def demo(
    run: Run,
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="Text whose next token is explained.")
    ] = PROMPT,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")] = Path(
        "demo-out"
    ),
) -> None:
    """Do it all on the packaged model, offline.

    Measures its transcoders, traces one prompt, checks the trace by intervention, writes the graph
    as a file, as JSON and as an offline page, and says what was found and how far to trust it.
    """
    from pellucid import api
    from pellucid.attribution.trace import trace
    from pellucid.cli.artifacts import write_graph
    from pellucid.cli.tables import fidelity_table, prediction_tables
    from pellucid.cli.words import describe_graph, graph_record
    from pellucid.evaluation import evaluate
    from pellucid.evaluation.meaning import graph_meanings, labelled, unwritten_values

    started = time.perf_counter()
    model = api.load_model(SPECIMEN, device=run.device)
    dictionaries = api.load_dictionaries(SPECIMEN, device=run.device)
    with run.stages() as on_progress:
        on_progress("tracing", 0.0)
        graph = trace(model, prompt, dictionaries, seed=run.seed)
        on_progress("reading features", 0.0)
        meanings = graph_meanings(graph, model, dictionaries, tokens=MEANING_TOKENS, seed=run.seed)
        graph = labelled(graph, meanings)
        evaluation = evaluate(
            model,
            dictionaries,
            SPECIMEN,
            tokens=FIDELITY_TOKENS,
            seed=run.seed,
            layerwise=False,
            tasks=False,
            on_progress=on_progress,
        )
    files = write_graph(
        graph,
        {
            "pellucid": out / "graph.safetensors",
            "neuronpedia": out / "graph.json",
            "html": out / "graph.html",
        },
    )
    unwritten = unwritten_values(graph, meanings)
    record = graph_record(graph) | {
        "unwritten": [asdict(each) for each in unwritten],
        "fidelity": evaluation.to_json(),
        "files": files,
        "seconds": time.perf_counter() - started,
    }
    run.report(
        record,
        fidelity_table(evaluation.layers),
        *prediction_tables(evaluation),
        *describe_graph(graph, unwritten),
        *(f"wrote {path}" for path in files.values()),
    )
