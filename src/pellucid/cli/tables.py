"""Tables that show an evaluation to a reader."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from pellucid.evaluation.report import Evaluation, Prediction
from pellucid.harvest.fidelity import LayerFidelity

if TYPE_CHECKING:
    from pellucid.introspection.report import Report


def fidelity_table(layers: Sequence[LayerFidelity]) -> Table:
    """FVU, L0 and dead share by layer."""
    table = _table("Reconstruction", "layer", "FVU", "L0", "dead")
    for row in layers:
        table.add_row(str(row.layer), f"{row.fvu:.4f}", f"{row.l0:.1f}", f"{row.dead:.1%}")
    return table


def feature_table(evaluation: Evaluation) -> Table:
    """Dead, dense and near-duplicate features by layer."""
    table = _table("Features", "layer", "dead", "dense", "near-duplicates", "of random directions")
    for layer, duplicates in zip(evaluation.layers, evaluation.duplicates, strict=True):
        shares = (layer.dead, layer.dense or 0.0, duplicates.share, duplicates.random)
        table.add_row(str(layer.layer), *(f"{share:.1%}" for share in shares))
    return table


def prediction_tables(evaluation: Evaluation) -> list[Table]:
    """What the model predicts with MLPs replaced, beside the baselines; empty if not measured."""
    if evaluation.replacement is None:
        return []
    together = _table(
        "All MLPs replaced at once", "by", "CE", "KL", "same top token", "loss recovered"
    )
    together.add_row("nothing (the original)", f"{evaluation.original_ce:.4f}", "0", "100%", "1")
    rows = {"dictionaries": evaluation.replacement.all} | evaluation.baselines
    for name, prediction in rows.items():
        together.add_row(_NAMES.get(name, name), *_figures(prediction))
    tables = [together]
    for title, predictions in (
        ("One layer replaced", evaluation.replacement.per_layer),
        ("The first layers replaced", evaluation.replacement.cumulative),
    ):
        if predictions:
            table = _table(title, "layers", "CE", "KL", "same top token", "loss recovered")
            for prediction in predictions:
                table.add_row(_span(prediction.layers), *_figures(prediction))
            tables.append(table)
    return tables


def task_tables(evaluation: Evaluation) -> list[Table]:
    """The specimen's task figures, before and after; empty if not measured."""
    if not evaluation.tasks:
        return []
    table = _table("Held-out tasks", "task", "original", "all MLPs replaced")
    for name, figures in evaluation.tasks.items():
        table.add_row(name, f"{figures.original:.1%}", f"{figures.replaced:.1%}")
    return [table]


def concept_tables(evaluation: Evaluation) -> list[Table]:
    """How features stand for the specimen's concepts, beside controls; empty if not measured."""
    if not evaluation.concepts:
        return []
    count = len(evaluation.concepts[0].concepts)
    table = _table(
        f"Single features for {count} annotated concepts",
        *("layer", "F1", "features", "F1 together", "represented", "absorbed"),
    )
    for report in evaluation.concepts:
        for name, figures in (
            (str(report.layer), report.figures),
            ("  random directions", report.random),
            ("  shuffled labels", report.shuffled),
        ):
            table.add_row(
                name,
                f"{figures.f1:.3f}",
                f"{figures.features:.2f}",
                f"{figures.together:.3f}",
                f"{figures.represented:.0%}",
                f"{figures.absorbed:.1%}",
            )
    return [table]


def introspection_tables(report: "Report") -> list[Table]:
    """Arms, forced choices and contrasts of an introspection run."""
    from pellucid.introspection import report as said

    arms = _table("Answers", "arm", "yes", "and named it", "refused", "unclear", "n")
    choices = _table("Forced choices", "task", "right", "chance", "n")
    contrasts = _table("Paired differences", "contrast", "difference")
    for table, rows in (
        (arms, said.arm_rows(report)),
        (choices, said.choice_rows(report)),
        (contrasts, said.contrast_rows(report)),
    ):
        for row in rows:
            table.add_row(*row)
    return [arms, choices, contrasts]


_NAMES = {
    "zero": "zero",
    "mean": "their mean",
    "linear": "a linear map",
    "random": "random dictionaries",
}


def _figures(prediction: Prediction) -> list[str]:
    return [
        f"{prediction.ce:.4f}",
        f"{prediction.kl:.4f}",
        f"{prediction.top1:.1%}",
        f"{prediction.loss_recovered:.4f}",
    ]


def _span(layers: Sequence[int]) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
