"""`pellucid sweep`: a grid of trainings, and the Pareto front of fidelity against L0."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count, parse_counts, parse_layers, parse_numbers, parse_seeds

if TYPE_CHECKING:
    from pellucid.training.sweep import SweepResult


def sweep(
    run: Run,
    model: options.Model,
    out: options.OutFolder,
    k: Annotated[str, typer.Option("--k", metavar="K,K", help="Active features a token.")],
    features: Annotated[
        str, typer.Option("--features", metavar="F,F", help="Features a dictionary, as in 1k,3k.")
    ],
    data: options.Data = None,
    kinds: Annotated[
        str, typer.Option("--kinds", help="Of transcoder, skip-transcoder, sae, clt.")
    ] = "transcoder",
    activations: Annotated[
        str, typer.Option("--activations", help="Of topk, batchtopk, jumprelu, relu.")
    ] = "topk",
    sparsities: Annotated[
        str | None,
        typer.Option(
            "--sparsities",
            metavar="X,X",
            help="Weights of the penalty of relu and jumprelu; --sparsity of train.",
        ),
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option("--learning-rates", metavar="X,X", help="--learning-rate of train."),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds", metavar="N,N", help="Of the trainings; --seed is of the text alone."
        ),
    ] = "0",
    layers: Annotated[
        str | None, typer.Option("--layers", metavar="0-3", help="Which layers; all by default.")
    ] = None,
    tokens: options.Tokens = 2_000_000,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", parser=parse_count, metavar="N", help="Tokens a step.")
    ] = 4096,
    measure_tokens: Annotated[
        int,
        typer.Option(
            "--measure-tokens",
            parser=parse_count,
            metavar="N",
            help="Tokens of held-out text to measure each training on.",
        ),
    ] = 20_000,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="DIR", help="Caches of the activations, so that text is read once."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="The plot, .svg or .png; DIR/sweep.svg else."),
    ] = None,
) -> None:
    """Train a grid of dictionaries and draw fidelity against L0.

    Every combination of the lists (1,2,3) is trained in a folder of its own in DIR. The same
    command goes on after an interruption, and trains nothing twice; what is damaged is made anew.
    Figures of all are in DIR/sweep.parquet.
    """
    from pellucid import api
    from pellucid.training.sweep import Grid
    from pellucid.training.sweep import sweep as run_sweep

    grid = Grid(
        k=options.parsed("--k", parse_counts, k),
        features=options.parsed("--features", parse_counts, features),
        kinds=kinds.split(","),
        activations=activations.split(","),
        sparsities=_numbers("--sparsities", sparsities),
        learning_rates=_numbers("--learning-rates", learning_rates),
        seeds=options.parsed("--seeds", parse_seeds, seeds),
        batch_tokens=batch_tokens,
    )
    chosen = None if layers is None else options.parsed("--layers", parse_layers, layers)
    text = options.or_specimen(data, model, "--data")
    with run.stages() as on_stage:
        loaded = api.load_model(model, device=run.device)
        result = run_sweep(
            loaded,
            text,
            out,
            grid,
            tokens=tokens,
            layers=chosen,
            measure_tokens=measure_tokens,
            cache=cache,
            picture=plot,
            seed=run.seed,
            on_progress=lambda now: on_stage(
                f"{now.name} ({now.run} of {now.runs})",
                now.training.tokens / now.training.total_tokens if now.training else 0.0,
            ),
        )
    run.report(
        result.to_json(),
        _table(result),
        "* on the Pareto front of its target: FVU of resid_post and of mlp_out do not compare",
        f"wrote {result.table} and {result.picture}",
    )


def _numbers(option: str, text: str | None) -> tuple[float | None, ...]:
    """The numbers of an option; the default alone if it is not given."""
    return (None,) if text is None else options.parsed(option, parse_numbers, text)


def _table(result: "SweepResult") -> Table:
    name = Column("training", overflow="fold")
    table = Table("", name, "target", "L0", "FVU", "KL", "dead", title="Sweep")
    best = {name for fronts in result.front.values() for names in fronts.values() for name in names}
    for row in result.rows:
        table.add_row(
            "*" if row.name in best else "",
            row.name.removeprefix("run-"),
            row.target,
            f"{row.l0:.1f}",
            f"{row.fvu:.4f}",
            "" if row.kl is None else f"{row.kl:.4f}",
            f"{row.dead:.1%}",
        )
    return table
