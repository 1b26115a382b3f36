"""What an experiment found, to read: Markdown and a picture, from its record alone."""

from collections.abc import Mapping
from typing import Any

from pellucid.verification.experiment.measure import RUNGS

Record = Mapping[str, Any]
_COLOURS = (
    ("length", "#999999"),
    ("text", "#b8860b"),
    ("confidence", "#2166ac"),
    ("hidden", "#4393c3"),
    ("activations", "#66a61e"),
    ("error", "#8c6bb1"),
    ("direct", "#1b9e77"),
    ("graph", "#b2182b"),
    ("combined", "#000000"),
)


def leading(record: Record) -> list[str]:
    """The methods that answer the question: the best of every rung, the published one, and ours.

    Args:
        record: as `experiment` returns it.
    """
    ours = ("crv", "graph", "graph+confidence", "everything but the graph", "everything")
    wanted = {*record["ladder"].values(), *ours}
    return [name for name in _sorted(record) if name in wanted]


def markdown(record: Record) -> str:
    """The whole experiment as a page.

    Args:
        record: as `experiment` returns it.
    """
    matched = record["matched"]
    parts = [
        f"# Verification, {record['task']}, {record['regime']}",
        _data(record),
        "Figures are means over folds and seeds, with 95% intervals from questions drawn with "
        "replacement, the same draws for every method. *Matched*: right steps weighted to the "
        "lengths and operators of the wrong ones. The best baseline is chosen on the steps it is "
        "measured on, which favours it.",
        "## What the graph adds",
        _differences(record["differences"]),
        "The same, matched:" if "differences" in matched else "",
        _differences(matched.get("differences", {})),
        "## The ladder",
        "The best method that looks no further than the rung.",
        _rows(record, [record["ladder"][rung] for rung in RUNGS if rung in record["ladder"]]),
        "## Every method",
        _rows(record, _sorted(record)),
        "## Folds",
        _folds(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def picture(record: Record) -> Any:
    """A matplotlib figure: AUROC of the leading methods with intervals, hollow where matched.

    Args:
        record: as `experiment` returns it.
    """
    from matplotlib.figure import Figure

    names = leading(record)[::-1]
    figure = Figure(figsize=(7.0, 1.2 + 0.28 * len(names)), layout="constrained")
    axis, colours = figure.subplots(), dict(_COLOURS)
    for place, name in enumerate(names):
        row = record["methods"][name]
        colour = colours[row["rung"]]
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.5)
        axis.plot(row["auroc"], place, "o", color=colour, markersize=5)
        if name in record["matched"].get("methods", {}):
            level = record["matched"]["methods"][name]["auroc"]
            axis.plot(level, place, "o", markeredgecolor=colour, color="none", markersize=5)
    axis.axvline(0.5, color="0.7", linewidth=0.8)
    shown = [f"{name} ({record['methods'][name]['rung']})" for name in names]
    axis.set_yticks(range(len(names)), shown, fontsize=7)
    axis.set_xlabel("AUROC; hollow: matched on length and operators")
    axis.set_title(f"{record['task']}, {record['regime']}", fontsize=10)
    return figure


def _sorted(record: Record) -> list[str]:
    return sorted(record["methods"], key=lambda name: -record["methods"][name]["auroc"])


def _data(record: Record) -> str:
    rows = [
        [
            name,
            f"{each['questions']:,}",
            f"{each['steps']:,}",
            f"{each['wrong']:,}",
            f"{each['error_rate']:.1%}",
            ", ".join(f"{kind} {count}" for kind, count in each["errors"].items()),
        ]
        for name, each in record["collections"].items()
    ]
    table = _table("chains, questions, steps read, wrong, steps that are wrong, errors", rows)
    return f"{table}\n\n{record['seconds_per_step']:.3f} processor seconds a step for its graphs."


def _differences(found: Mapping[str, Any]) -> str:
    names = (("auroc", "AUROC"), ("ap", "average precision"), ("fpr95", "FPR@95"))
    rows = [[pair, *(_signed(each[key]) for key, _ in names)] for pair, each in found.items()]
    return _table(", ".join(("difference", *(name for _, name in names))), rows) if rows else ""


def _rows(record: Record, names: list[str]) -> str:
    matched = record["matched"].get("methods", {})
    rows = []
    for name in names:
        row = record["methods"][name]
        level = matched.get(name)
        rows.append(
            [
                name,
                row["rung"],
                f"{row['auroc']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
                f"{row['ap']:.3f}",
                f"{row['aupr']:.3f}",
                f"{row['fpr95']:.1%}",
                ""
                if level is None
                else f"{level['auroc']:.3f} ({level['low']:.3f} to {level['high']:.3f})",
            ]
        )
    heads = "method, rung, AUROC, average precision, trapezoid AUPR, FPR@95, AUROC matched"
    return _table(heads, rows)


def _folds(record: Record) -> str:
    names = leading(record)
    rows = [
        [fold, *(f"{each[name]:.3f}" for name in names)] for fold, each in record["folds"].items()
    ]
    return _table(", ".join(("tested on", *names)), rows)


def _signed(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:+.3f} ({estimate['low']:+.3f} to {estimate['high']:+.3f})"


def _table(heads: str, rows: list[list[str]]) -> str:
    columns = heads.split(", ")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
