"""`pellucid verify watch`: a chain judged step by step while the model writes it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count

if TYPE_CHECKING:
    from pellucid.verification.watching.watch import Watcher

Prompt = Annotated[
    str, typer.Argument(metavar="PROMPT", help="A question and '=', or any text with --by.")
]
VerifierFolder = Annotated[
    Path, typer.Option("--verifier", metavar="DIR", help="Written by `verify fit`.")
]
By = Annotated[
    str,
    typer.Option(
        "--by",
        metavar="RULE",
        help="How steps are told apart: expressions, lines, paragraphs, sentences, numbered, or "
        "pattern: and a regular expression.",
    ),
]
NewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        parser=parse_count,
        metavar="N",
        help="The most tokens of the chain; what the context leaves if not given.",
    ),
]
Temperature = Annotated[float, typer.Option("--temperature", help="0 for greedy.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="P",
        help="Probability from which on a step is flagged; the verifier's own if not given.",
    ),
]
Band = Annotated[
    bool,
    typer.Option(
        "--band/--no-band", help="Trace a graph only where the free score leaves doubt, or always."
    ),
]
Agreement = Annotated[
    float,
    typer.Option(
        "--agreement",
        metavar="SHARE",
        help="Share of decisions without a graph that must be the verifier's.",
    ),
]
Stop = Annotated[bool, typer.Option("--stop", help="Write no further after a flagged step.")]
Features = Annotated[
    int,
    typer.Option(
        "--features", metavar="N", help="Accused features and errors named a flagged step."
    ),
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write the chain as a page.")
]
AnyModel = Annotated[
    bool,
    typer.Option("--any-model", help="Allow a verifier that was fitted on another model's steps."),
]


def watch(
    run: Run,
    model: options.Model,
    prompt: Prompt,
    verifier: VerifierFolder,
    dictionaries: options.Dictionaries = None,
    by: By = "expressions",
    max_new_tokens: NewTokens = None,
    temperature: Temperature = 0.0,
    threshold: Threshold = None,
    band: Band = True,
    agreement: Agreement = 0.99,
    stop: Stop = False,
    features: Features = 3,
    html: Html = None,
    any_model: AnyModel = False,
) -> None:
    """Let a model write a chain of thought, and judge each step as it is complete.

    A free score of the step, from the probabilities that it was written with, comes first; its
    attribution graph is traced only where that score leaves doubt. Steps are shown as they are
    complete, with the probability that they are wrong, and for flagged ones what speaks against
    them.
    """
    from pellucid import api
    from pellucid.cli.verify.watch_words import describe_step, describe_watching
    from pellucid.verification.verifier import load_verifier
    from pellucid.verification.watching.watch import Watcher, WatchSettings

    started = time.perf_counter()
    settings = WatchSettings(
        by=by,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=run.seed,
        threshold=threshold,
        banded=band,
        agreement=agreement,
        stop=stop,
        features=features,
        keep_graphs=html is not None,
    )
    name = options.or_specimen(dictionaries, model, "--dictionaries")
    loaded = api.load_model(model, device=run.device)
    fitted = load_verifier(verifier, model_fingerprint=loaded.fingerprint(), any_model=any_model)
    own = api.load_dictionaries(name, device=run.device, model=loaded)
    watcher = Watcher(loaded, own, fitted, settings)
    steps = []
    for step in watcher.watch(prompt):
        steps.append(step)
        if not run.json:
            for line in describe_step(step):
                run.results.print(line, highlight=False, soft_wrap=True)
    record = watcher.summary(steps) | {"seconds": time.perf_counter() - started}
    if html is not None:
        record["files"] = {"html": _page(watcher, prompt, steps, html)}
    run.report({"prompt": prompt} | record, *describe_watching(record))


def _page(watcher: "Watcher", prompt: str, steps: list[Any], path: Path) -> str:
    from pellucid.core.files import write_text
    from pellucid.verification.page import chain_page

    write_text(path, chain_page(prompt, steps, band=watcher.band))
    return str(path)
