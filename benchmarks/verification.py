"""The figures of all regimes of `pellucid verify experiment` in one file.

    for task in arithmetic boolean; do for regime in in deeper planted transfer; do
        pellucid verify experiment specimen --task $task --regime $regime --out FOLDER
    done; done
    python -m benchmarks.verification FOLDER

An experiment takes 5 to 20 minutes of one core, and its steps half an hour before that. Writes
`benchmarks/results/verification.json`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import hardware
from pellucid.verification.experiment.regimes import REGIMES, TASKS
from pellucid.verification.experiment.report import leading

RESULT = Path(__file__).parent / "results" / "verification.json"
FIGURES = ("auroc", "low", "high", "ap", "aupr", "fpr95", "rung")
METRICS = ("auroc", "ap", "fpr95")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    regimes = {
        f"{task}-{regime}": condensed(json.loads((folder / f"{task}-{regime}.json").read_text()))
        for task in TASKS
        for regime in REGIMES
    }
    record = {"regimes": regimes, "hardware": hardware()}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


def condensed(record: dict[str, Any]) -> dict[str, Any]:
    """An experiment's record without what no page shows."""
    kept = ("seeds", "collections", "steps_hash", "seconds_per_step", "versions")
    matched = record["matched"]
    short = {name: record[name] for name in kept} | table(record)
    if "methods" in matched:
        short["matched"] = table(matched)
    names = leading(record)
    short["folds"] = {
        fold: {name: round(each[name], 4) for name in names}
        for fold, each in record["folds"].items()
    }
    return short


def table(record: dict[str, Any]) -> dict[str, Any]:
    """Methods, ladder and differences, rounded."""
    return {
        "methods": {
            name: {key: rounded(row[key]) for key in FIGURES}
            for name, row in record["methods"].items()
        },
        "best_baseline": record["best_baseline"],
        "ladder": record["ladder"],
        "differences": {
            pair: {
                metric: {key: rounded(value) for key, value in each[metric].items()}
                for metric in METRICS
            }
            for pair, each in record["differences"].items()
        },
    }


def rounded(value: Any) -> Any:
    """Four digits of a number."""
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
