"""`pellucid introspect`: what a model reports of vectors injected into it, with every control."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count, parse_layers
from pellucid.core.errors import ConfigError

if TYPE_CHECKING:
    from pellucid.introspection.judges import Judge
    from pellucid.introspection.wording import Wording

KEY_VARIABLE = "PELLUCID_JUDGE_KEY"

WordingFile = Annotated[
    str | None,
    typer.Option(
        "--wording",
        metavar="NAME|FILE",
        help="What is said: english (the default), specimen (its default), or a JSON file.",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option("--layers", metavar="0-3", help="Inject after these; the suite chooses one."),
]
Strengths = Annotated[
    str,
    typer.Option("--strengths", metavar="A,B", help="Factors of the concepts' vectors."),
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials",
        parser=parse_count,
        metavar="N",
        help="A cell, at least; what the power calculation asks if not given, 200 or more.",
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="60 trials a cell and two strengths: a trial of the suite.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", help="Of answers; 0 takes the likeliest token.")
]
JudgeName = Annotated[
    str,
    typer.Option(
        "--judge",
        metavar="exact|logits|URL",
        help="Who reads answers; a URL is an OpenAI-compatible endpoint.",
    ),
]
JudgeModel = Annotated[
    str | None, typer.Option("--judge-model", help="The judge's name at the endpoint.")
]
JudgeCache = Annotated[
    Path | None,
    typer.Option("--judge-cache", metavar="DIR", help="Keep the endpoint's replies here."),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Also write the report as JSON.")
]
ReportFile = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Also write it as Markdown.")
]
TrainOrganism = Annotated[
    Literal["reporter", "yes-bias"] | None,
    typer.Option(
        "--train-organism",
        help="Instead: train this organism of the specimen, in minutes, into --out.",
    ),
]


def introspect(
    run: Run,
    model: options.Model,
    wording: WordingFile = None,
    layers: Layers = None,
    strengths: Strengths = "1,2,4,8",
    trials: Trials = None,
    quick: Quick = False,
    temperature: Temperature = 1.0,
    judge: JudgeName = "exact",
    judge_model: JudgeModel = None,
    judge_cache: JudgeCache = None,
    out: Out = None,
    report: ReportFile = None,
    train_organism: TrainOrganism = None,
) -> None:
    """Test whether a model reports vectors injected into its residual stream.

    Injected thoughts, thought against text, prefill detection and intentional control, with
    norm-matched random and shuffled vectors, factual questions under the same injection, other
    concepts asked about, injections removed before the question, localisation and comparison of
    strengths. It says what was answered; its verdict is "evidence" only beyond every control.
    MODEL may also be specimen:reporter or specimen:yes-bias, which test the suite itself.
    """
    if train_organism is not None:
        _train(run, model, train_organism, out)
        return
    from pellucid import api
    from pellucid.introspection.suite import Settings
    from pellucid.introspection.suite import introspect as measure
    from pellucid.introspection.wording import read_wording

    started = time.perf_counter()
    of_specimen = model.partition(":")[0] == options.SPECIMEN
    said = read_wording(wording or ("specimen" if of_specimen else "english"))
    settings = Settings(
        layers=None if layers is None else tuple(options.parsed("--layers", parse_layers, layers)),
        strengths=tuple(options.parsed("--strengths", _numbers, strengths)),
        trials=trials,
        quick=quick,
        temperature=temperature,
        seed=run.seed,
    )
    reader = _judge(judge, judge_model, judge_cache, said)
    loaded = api.load_model(model, device=run.device)
    with run.stages() as on_progress:
        result = measure(loaded, said, reader, settings=settings, on_progress=on_progress)
    record = result.to_json() | {"seconds": time.perf_counter() - started}
    _show(run, result, record, {"json": out, "report": report})


def _show(run: Run, result: Any, record: dict[str, Any], files: dict[str, Path | None]) -> None:
    import json

    from pellucid.cli.run import finite
    from pellucid.cli.tables import introspection_tables
    from pellucid.core.files import write_text
    from pellucid.introspection.report import markdown, summary

    written = {name: str(path) for name, path in files.items() if path is not None}
    record = record | {"files": written}
    if files["json"] is not None:
        write_text(files["json"], json.dumps(finite(record), indent=1, allow_nan=False) + "\n")
    if files["report"] is not None:
        write_text(files["report"], markdown(result))
    tables = introspection_tables(result)
    run.report(record, *tables, *summary(result), *(f"wrote {each}" for each in written.values()))


def _judge(name: str, model: str | None, cache: Path | None, wording: "Wording") -> "Judge | None":
    """The judge of that name; None for logits alone."""
    from pellucid.introspection.endpoint import EndpointJudge
    from pellucid.introspection.judges import ExactJudge

    if name in ("exact", "logits"):
        if model is not None or cache is not None:
            raise ConfigError(
                f"--judge-model and --judge-cache are for an endpoint, and --judge is {name!r}; "
                "leave them out or give a URL"
            )
        return ExactJudge(wording) if name == "exact" else None
    if model is None:
        raise ConfigError(f"--judge is {name!r} without --judge-model; say which model judges")
    return EndpointJudge(
        name, model, wording.concepts, cache=cache, key=os.environ.get(KEY_VARIABLE)
    )


def _train(run: Run, model: str, name: Literal["reporter", "yes-bias"], out: Path | None) -> None:
    from dataclasses import replace

    from pellucid import api
    from pellucid.introspection.organisms.recipe import RECIPES, train_organism

    if model != options.SPECIMEN or out is None:
        raise ConfigError(
            f"organisms are made of the specimen, and MODEL is {model!r} with --out {out}; write "
            "pellucid introspect specimen --train-organism NAME --out DIR"
        )
    started = time.perf_counter()
    with run.counter("steps") as on_progress:
        train_organism(
            api.load_model(model, device=run.device),
            replace(RECIPES[name], seed=run.seed),
            out,
            on_progress=lambda now: on_progress(now.step, now.steps),
        )
    run.report({"out": str(out), "seconds": time.perf_counter() - started}, f"wrote {out}")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of numbers; write it like 1,2,4,8") from None
