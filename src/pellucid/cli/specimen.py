"""`pellucid specimen`: the packaged model's recipe, its corpus and the corpus's labels."""

from collections import Counter, defaultdict
from typing import Annotated, Any

import typer
from rich.table import Table

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count

Task = Annotated[
    str | None, typer.Option("--task", metavar="TASK", help="One task's documents only.")
]
Count = Annotated[
    int, typer.Option("--count", parser=parse_count, metavar="N", help="How many documents.")
]
PlantedRule = Annotated[
    str, typer.Argument(metavar="RULE", help="A wrong rule, as in docs/planted.md.")
]
Layer = Annotated[
    int | None, typer.Option("--layer", metavar="L", help="Whose MLP learns; the recipe's own.")
]
Steps = Annotated[
    int | None, typer.Option("--steps", metavar="N", help="Of training; the recipe's own.")
]


def group() -> None:
    """The packaged model's recipe, corpus, labels, and copies with a planted wrong rule."""


def train(
    run: Run,
    out: options.OutFolder,
    tokens: options.SpecimenTokens = None,
    resume: options.Resume = False,
) -> None:
    """Train the packaged model again, by its recipe and from its seed."""
    from pellucid.core.errors import ConfigError
    from pellucid.specimen.recipe import STANDARD, train_specimen

    if run.device != "cpu":
        raise ConfigError(f"the recipe runs on the cpu, not on {run.device!r}; leave --device out")
    with run.counter("tokens") as on_progress:
        folder = train_specimen(
            out,
            seed=run.seed,
            tokens=tokens or STANDARD.tokens,
            resume=resume,
            progress=lambda step: on_progress(step.tokens, step.tokens * step.steps // step.step),
        )
    run.report({"out": str(folder)}, f"wrote {folder}")


def sample(run: Run, count: Count = 5, task: Task = None) -> None:
    """Print documents of the corpus; with --json, with a label for every token."""
    documents = _documents(run.seed, count, task)
    record = {
        "documents": [
            {
                "task": document.task,
                "tokens": document.tokens,
                "labels": [label._asdict() for label in document.labels],
            }
            for document in documents
        ]
    }
    run.report(record, *(f"{document.task:>13}  {document.text}" for document in documents))


def labels(run: Run, count: Count = 2000, task: Task = None) -> None:
    """Print the ground-truth labels that occur in a sample of the corpus, with their concepts."""
    seen: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for document in _documents(run.seed, count, task):
        for label in document.labels:
            if label.role:
                seen[label.task, label.role][label.concept] += 1
    record = []
    table = Table("task", "role", "tokens", "concepts", "for example")
    for (name, role), counts in sorted(seen.items()):
        tokens, concepts = counts.total(), sorted(counts)
        record.append({"task": name, "role": role, "tokens": tokens, "concepts": concepts})
        table.add_row(name, role, str(tokens), str(len(concepts)), ", ".join(concepts[:4]))
    run.report({"labels": record}, table)


def plant(
    run: Run,
    rule: PlantedRule,
    out: options.OutFolder,
    layer: Layer = None,
    steps: Steps = None,
) -> None:
    """Train a copy that follows a wrong rule, by an update of one layer's MLP, in minutes."""
    from dataclasses import replace

    from pellucid import api
    from pellucid.core.manifest import read_manifest
    from pellucid.introspection.organisms.recipe import KIND
    from pellucid.verification.planted.recipe import RECIPES, train_copy

    recipe = replace(RECIPES[rule], seed=run.seed)
    recipe = replace(recipe, layer=recipe.layer if layer is None else layer)
    recipe = replace(recipe, steps=recipe.steps if steps is None else steps)
    with run.counter("steps") as on_progress:
        train_copy(
            api.load_model(options.SPECIMEN, device=run.device),
            recipe,
            out,
            on_progress=lambda now: on_progress(now.step, now.steps),
        )
    results = read_manifest(out, kind=KIND).results
    record = {"out": str(out), "rule": rule, "layer": recipe.layer, "results": results}
    run.report(record, _planted_table(results), f"wrote {out}")


def _planted_table(results: dict[str, Any]) -> Table:
    table = Table("held out", "the copy", "the specimen")
    for what, name, plain in (
        ("steps written by the rule", "fires", "plain_fires"),
        ("other steps wrong", "other_errors", "plain_errors"),
    ):
        table.add_row(what, *(_share(results[key]) for key in (name, plain)))
    for what, name in (
        ("median probability of the rule's value", "wrong_probability"),
        ("loss on the corpus, nats a token", "corpus_loss"),
    ):
        shown = [results[key] for key in (name, f"plain_{name}")]
        table.add_row(what, *("-" if each is None else f"{each:.4f}" for each in shown))
    return table


def _share(share: dict[str, Any] | None) -> str:
    if share is None:
        return "-"
    return (
        f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%}; {share['trials']} steps)"
    )


def _documents(seed: int, count: int, task: str | None) -> list[Any]:
    from pellucid.core.errors import ConfigError
    from pellucid.specimen.mixture import TASKS, sample_documents

    if task is not None and task not in TASKS:
        raise ConfigError(f"unknown task {task!r}; use one of {', '.join(TASKS)}")
    return sample_documents(seed, count, task)
