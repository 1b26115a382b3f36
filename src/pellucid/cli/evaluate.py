"""`pellucid eval`: how far the dictionaries can stand in for the model."""

import time
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli import options
from pellucid.cli.run import Run

SelfCheck = Annotated[
    bool,
    typer.Option(
        "--self-check/--no-self-check",
        help="First compare FVU and L0 on a few tokens with those recorded, if any are.",
    ),
]


def evaluate(
    run: Run,
    model: options.Model,
    dictionaries: options.Dictionaries = None,
    data: options.Data = None,
    tokens: options.Tokens = 50_000,
    layerwise: options.Layerwise = True,
    concepts: Annotated[
        bool,
        typer.Option(
            "--concepts", help="On the specimen: which features stand for its annotated concepts."
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw how often features fire, by layer, as .svg or .png.",
        ),
    ] = None,
    self_check: SelfCheck = True,
) -> None:
    """Measure how far dictionaries stand in for the model.

    Fidelity by layer, and predictions with the MLPs replaced, on held-out text, beside four
    baselines: zero ablation, mean ablation, a linear map and a random dictionary. On the specimen
    its tasks are measured too. Where the dictionaries' own figures are recorded, a few tokens are
    compared with them first: a dictionary read at a wrong site is refused.
    """
    from pellucid import api
    from pellucid.cli.tables import (
        concept_tables,
        feature_table,
        fidelity_table,
        prediction_tables,
        task_tables,
    )
    from pellucid.core.pictures import check_picture, save_picture
    from pellucid.evaluation import evaluate as measure
    from pellucid.evaluation.draw import density_picture
    from pellucid.harvest.self_check import check_fidelity

    if plot is not None:
        check_picture(plot)
    started = time.perf_counter()
    dictionaries = options.or_specimen(dictionaries, model, "--dictionaries")
    data = options.or_specimen(data, model, "--data")
    loaded = api.load_model(model, device=run.device)
    own = api.load_dictionaries(dictionaries, device=run.device, model=loaded)
    if self_check:
        check_fidelity(own, loaded, data, seed=run.seed)
    with run.stages() as on_progress:
        evaluation = measure(
            loaded,
            own,
            data,
            tokens=tokens,
            seed=run.seed,
            layerwise=layerwise,
            concepts=concepts,
            on_progress=on_progress,
        )
    if plot is not None:
        save_picture(density_picture(evaluation.layers), plot)
    run.report(
        evaluation.to_json() | {"seconds": time.perf_counter() - started},
        f"{evaluation.tokens:,} held-out tokens of {evaluation.documents:,} documents",
        fidelity_table(evaluation.layers),
        feature_table(evaluation),
        *prediction_tables(evaluation),
        *task_tables(evaluation),
        *concept_tables(evaluation),
    )
    if not evaluation.baselines_fitted_apart:
        run.remark("The text is too short to hold any of it out: baselines saw the same text.")
