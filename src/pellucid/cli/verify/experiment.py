"""`pellucid verify experiment`: what the graph adds to everything that is cheaper."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli import options
from pellucid.cli.ranks import gathered, ranks
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count
from pellucid.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from pellucid.verification.reading.reader import Reader

Task = Annotated[str, typer.Option("--task", help="arithmetic or boolean.")]
RegimeOption = Annotated[
    str,
    typer.Option(
        "--regime",
        help="in (as in training), deeper (more operators), planted (copies with a wrong rule; the "
        "rule that is tested is not trained on), or transfer (trained on the other task).",
    ),
]
Seeds = Annotated[
    int, typer.Option("--seeds", parser=parse_count, metavar="N", help="Splits of the questions.")
]
Ablations = Annotated[
    bool,
    typer.Option(
        "--ablations/--no-ablations",
        help="Also the graph without each family of fingerprints, and each family alone.",
    ),
]
Scale = Annotated[
    float, typer.Option("--scale", help="Of the number of questions; below 1 for a trial.")
]


_FILES = {"report": "md", "picture": "png", "record": "json"}


def experiment(
    run: Run,
    model: options.Model,
    out: options.OutFolder,
    dictionaries: options.Dictionaries = None,
    task: Task = "arithmetic",
    regime: RegimeOption = "in",
    seeds: Seeds = 5,
    ablations: Ablations = True,
    scale: Scale = 1.0,
) -> None:
    """Compare verifiers of reasoning steps, from length and text up to the whole graph.

    Every method learns from the same questions and is tested on others: AUROC, average precision,
    trapezoid AUPR and FPR@95 with intervals over questions, as they are and matched on length and
    depth, and paired differences that say what the graph adds. Steps, scores and figures are kept
    in --out, where a run that was stopped goes on; regimes share their steps there. Under torchrun
    each process collects a share of the steps, and the first one does the rest.
    """
    from pellucid.verification.experiment.regimes import regime as chosen
    from pellucid.verification.experiment.run import collect_regime
    from pellucid.verification.experiment.run import experiment as measured

    started = time.perf_counter()
    wanted = chosen(task, regime, scale=scale)
    if wanted.name == "planted" and model != options.SPECIMEN:
        raise ConfigError(
            f"there are no planted copies of {model}; use --regime in, deeper or transfer, or the "
            "model specimen"
        )
    if scale <= 0 or seeds < 1:
        raise ConfigError(f"--scale {scale} and --seeds {seeds}; both must be above 0")
    readers = _Readers(model, dictionaries or model, run.device)
    with ranks() as share:
        with run.stages() as stage:
            steps = collect_regime(
                wanted,
                readers,
                out,
                share=share,
                on_progress=lambda name, done, total: stage(f"reading {name}", done / total),
            )
        gathered({}, share)
        if share.rank:
            return
        if share.world > 1:  # now the parts of the others are there too
            steps = collect_regime(wanted, readers, out)
    with run.counter("fits") as on_progress:
        record = measured(
            wanted,
            steps,
            out,
            seeds=range(seeds),
            ablations=ablations,
            on_progress=lambda _, done, total: on_progress(done, total),
        )
    _report(run, out, record, started)


class _Readers:
    """Readers by source; one model is held at a time."""

    def __init__(self, model: str, dictionaries: str, device: str) -> None:
        self.model, self.dictionaries, self.device = model, dictionaries, device
        self._kept: tuple[str, Reader] | None = None

    def __call__(self, source: str) -> "Reader":
        from pellucid.api import load_dictionaries, load_model
        from pellucid.verification.experiment.regimes import PLAIN
        from pellucid.verification.reading.reader import Reader

        if self._kept is None or self._kept[0] != source:
            name = self.model if source == PLAIN else f"{self.model}:{source.replace(':', '-')}"
            loaded = load_model(name, device=self.device)
            own = load_dictionaries(self.dictionaries, device=self.device, model=loaded)
            self._kept = source, Reader(loaded, own)
        return self._kept[1]


def _report(run: Run, out: Path, record: dict[str, Any], started: float) -> None:
    from pellucid.core.files import write_text
    from pellucid.core.pictures import save_picture
    from pellucid.verification.experiment.report import leading, markdown, picture

    title = f"{record['task']}-{record['regime']}"
    files = {name: out / f"{title}.{end}" for name, end in _FILES.items()}
    write_text(files["report"], markdown(record))
    save_picture(picture(record), files["picture"])
    record = record | {
        "seconds": time.perf_counter() - started,
        "files": {name: str(path) for name, path in files.items()},
    }
    run.report(
        record,
        _table(record, leading(record)),
        *(_says(pair, each["auroc"]) for pair, each in record["differences"].items()),
        f"best baseline: {record['best_baseline']}; {record['seconds_per_step']:.3f} processor "
        "seconds a step for its graphs",
        f"wrote {files['report']}, {files['picture']}",
    )


def _table(record: dict[str, Any], names: list[str]) -> "Table":
    from rich.table import Table

    title = f"{record['task']}, {record['regime']}: the best of every rung, and the graph"
    table = Table("", "rung", "AUROC", "FPR@95", "avg. precision", "matched", title=title)
    matched = record["matched"].get("methods", {})
    for name in names:
        row = record["methods"][name]
        table.add_row(
            name,
            row["rung"],
            f"{row['auroc']:.3f} ({row['low']:.3f}-{row['high']:.3f})",
            f"{row['fpr95']:.1%}",
            f"{row['ap']:.3f}",
            f"{matched[name]['auroc']:.3f}" if name in matched else "",
        )
    return table


def _says(pair: str, estimate: dict[str, float]) -> str:
    low, high = estimate["low"], estimate["high"]
    return f"{pair}: {estimate['value']:+.3f} AUROC ({low:+.3f} to {high:+.3f})"
