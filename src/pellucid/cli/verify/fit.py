"""`pellucid verify fit`: from collected steps to a verifier, measured on questions left out."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count
from pellucid.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.table import Table

    from pellucid.verification.steps.step_set import StepSet
    from pellucid.verification.verifier.crossed import Crossed
    from pellucid.verification.verifier.verifier import Verifier

Steps = Annotated[
    list[Path], typer.Argument(metavar="STEPS...", help="Folders of collected steps.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="NAME",
        help="Column or prefix to read, as in graph.answer.; repeatable; free. and graph. if not "
        "given.",
    ),
]
How = Annotated[str, typer.Option("--estimator", help="boosting, histogram or logistic.")]
Relative = Annotated[
    str,
    typer.Option(
        "--normalise",
        help="Take readings as they are (none), or relative to right steps (right), or to right "
        "steps of like length (length).",
    ),
]
Within = Annotated[
    str,
    typer.Option(
        "--within",
        metavar="COLUMN",
        help="Normalise each value of this column apart, as in language.",
    ),
]
Calibration = Annotated[str, typer.Option("--calibration", help="platt or isotonic.")]
Recall = Annotated[
    float,
    typer.Option(
        "--recall",
        metavar="SHARE",
        help="Share of faulty questions whose wrong steps the threshold must all flag.",
    ),
]
Strata = Annotated[
    int,
    typer.Option(
        "--strata",
        parser=parse_count,
        metavar="N",
        help="Parts by length in each of which that is promised.",
    ),
]
Folds = Annotated[
    int, typer.Option("--folds", parser=parse_count, metavar="N", help="Parts to cross-validate.")
]
Refits = Annotated[
    int,
    typer.Option(
        "--refits",
        metavar="N",
        help="Fits on questions drawn anew, for the intervals of probabilities; 0 for none.",
    ),
]


def fit(
    run: Run,
    steps: Steps,
    out: options.OutFolder,
    columns: Columns = None,
    estimator: How = "boosting",
    normalise: Relative = "none",
    within: Within = "",
    calibration: Calibration = "platt",
    recall: Recall = 0.95,
    strata: Strata = 1,
    folds: Folds = 5,
    refits: Refits = 10,
) -> None:
    """Fit a verifier to labelled steps and measure it on questions left out.

    Every figure is from cross-validation that never cuts a question, calibration and threshold
    included, with intervals from questions drawn with replacement; the length of a step alone
    stands beside it, and the same figures with right steps weighted to the wrong ones' lengths.
    """
    from pellucid.verification.verifier import Settings, Verifier, cross_validate
    from pellucid.verification.verifier.settings import COLUMNS

    started = time.perf_counter()
    if out.is_file():
        raise ConfigError(f"--out {out} is a file; give a folder")
    settings = Settings(
        columns=tuple(columns or COLUMNS),
        estimator=estimator,
        normalise=normalise,  # type: ignore[arg-type]
        within=within,
        calibration=calibration,
        recall=recall,
        strata=strata,
        folds=folds,
        refits=refits,
    )
    collected = _read(steps)
    with run.stages() as on_progress:
        crossed = cross_validate(collected, settings, seed=run.seed, on_progress=on_progress)
        verifier = Verifier.fit(collected, settings, seed=run.seed, on_progress=on_progress)
    verifier.save(out)
    record = _figures(collected, crossed, verifier, run.seed)
    run.report(
        record | {"out": str(out), "seconds": time.perf_counter() - started},
        f"{record['steps']:,} steps of {record['questions']:,} questions, {record['wrong']:,} "
        f"wrong; {len(verifier.columns)} columns",
        _table(record),
        f"calibration: ECE {_figure(record['ece'])}, Brier {_figure(record['brier'])}",
        f"threshold {_threshold(verifier)}: {verifier.conformal.statement()}; it flagged "
        f"{record['threshold']['recall']:.1%} of the wrong steps left out and "
        f"{record['threshold']['false_alarms']:.1%} of the right ones",
        f"wrote {out}",
    )


def _read(folders: list[Path]) -> "StepSet":
    """The steps of all folders, with every model they are of."""
    from pellucid.verification.collecting.collect import load_steps
    from pellucid.verification.steps.step_set import concatenate

    sets = [load_steps(folder) for folder in folders]
    for name in ("dictionaries", "settings"):
        for folder, each in zip(folders[1:], sets[1:], strict=True):
            if each.record.get(name) != sets[0].record.get(name):
                raise DataError(
                    f"{folder} was read with other {name} than {folders[0]}; collect both alike"
                )
    models = dict.fromkeys(each.record["model"] for each in sets if "model" in each.record)
    joined = concatenate(sets)
    return replace(joined, record={**joined.record, "models": list(models)})


def _figures(
    steps: "StepSet", crossed: "Crossed", verifier: "Verifier", seed: int
) -> dict[str, Any]:
    """The verifier beside length alone, as they are and with lengths matched."""
    from pellucid.verification.metrics.matching import matched_weights
    from pellucid.verification.metrics.resamples import difference

    scores = {"verifier": crossed.margin, "length": steps.columns["tokens"].astype(float)}
    drawn = crossed.resamples(seed=seed)
    measured = {name: drawn.measure(crossed.by_fold(each)) for name, each in scores.items()}
    beyond = difference(measured["verifier"], measured["length"])
    try:
        match = matched_weights(steps)
        equal = crossed.resamples(match.weights, seed=seed).measure(crossed.by_fold(crossed.margin))
        matched = {**_flat(equal.estimates()), **match.to_json()}
    except DataError:  # lengths do not overlap enough to be matched in every fold
        matched = None
    return {
        "methods": {name: _flat(each.estimates()) for name, each in measured.items()},
        "beyond_length": {name: each.to_json() for name, each in beyond.items()},
        "matched": matched,
        **crossed.trust(seed=seed),
        "promise": verifier.conformal.to_json(),
        "columns": list(verifier.columns),
        **{key: verifier.record[key] for key in ("steps", "wrong", "questions", "models")},
    }


def _flat(estimates: dict[str, Any]) -> dict[str, Any]:
    """Metric -> value, and `low` and `high` of the AUROC; the other intervals below."""
    return {
        **{name: each.value for name, each in estimates.items()},
        "low": estimates["auroc"].low,
        "high": estimates["auroc"].high,
        "intervals": {name: [each.low, each.high] for name, each in estimates.items()},
    }


def _table(record: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table("", *_METRICS, title="On questions left out", title_justify="left")
    rows = dict(record["methods"])
    if record["matched"]:
        rows["verifier,\nlengths matched"] = record["matched"]
    for name, row in rows.items():
        cells = [_cell(row, key) for key in _METRICS.values()]
        table.add_row(name, *cells)
    return table


_METRICS = {"AUROC": "auroc", "avg. precision": "ap", "AUPR": "aupr", "FPR@95": "fpr95"}


def _cell(row: dict[str, Any], key: str) -> str:
    low, high = row["intervals"][key]
    return f"{row[key]:.3f}" if low is None else f"{row[key]:.3f}\n{low:.3f}-{high:.3f}"


def _figure(estimate: dict[str, Any]) -> str:
    low, high = estimate["low"], estimate["high"]
    span = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{estimate['value']:.3f}{span}"


def _threshold(verifier: "Verifier") -> str:
    levels = verifier.calibration(verifier.conformal.margins)
    return " / ".join(f"{level:.3f}" for level in levels)
