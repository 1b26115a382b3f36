"""`sweep`: train every combination of a grid, measure it, and say which ones nothing beats."""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pellucid.core.claims import claim_folder
from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.manifest import MANIFEST_NAME, read_manifest
from pellucid.core.pictures import check_picture, save_picture
from pellucid.dictionaries.checkpoint import ARTIFACT_KIND, load_dictionaries
from pellucid.evaluation import evaluate
from pellucid.harvest.live import site_widths
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.training.config import TrainConfig
from pellucid.training.loop import train
from pellucid.training.metrics import TrainProgress
from pellucid.training.sites import layer_sites
from pellucid.training.sweep.draw import sweep_picture
from pellucid.training.sweep.front import MEASURES, pareto_front, points
from pellucid.training.sweep.grid import Grid
from pellucid.training.sweep.rows import SweepRow, load_row, make_row, save_row, save_table

logger = logging.getLogger(__name__)

TABLE = "sweep.parquet"
PICTURE = "sweep.svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepProgress:
    """Where a sweep is: in which training of how many (from 1), and where that one is.

    `training` is None while a training is prepared or measured.
    """

    name: str
    run: int
    runs: int
    training: TrainProgress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        rows: one a training, in the grid's order.
        front: target -> measure ("fvu", "kl") -> names of the trainings on the front, by rising
            L0; those of all seeds of a setting, since means over seeds are compared.
        table: the Parquet file.
        picture: the plot.
        seconds: of this call; trainings that were finished before are not in it.
    """

    rows: tuple[SweepRow, ...]
    front: dict[str, dict[str, list[str]]]
    table: Path
    picture: Path
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "front": self.front,
            "files": {"table": str(self.table), "picture": str(self.picture)},
            "seconds": self.seconds,
        }


def sweep(
    model: LanguageModel,
    data: str | Path | TextSource,
    out: str | Path,
    grid: Grid,
    *,
    tokens: int = 2_000_000,
    layers: Sequence[int] | None = None,
    measure_tokens: int = 20_000,
    cache: str | Path | None = None,
    picture: str | Path | None = None,
    seed: int = 0,
    checkpoint_seconds: float = 300.0,
    on_progress: Callable[[SweepProgress], None] | None = None,
) -> SweepResult:
    """Train and measure every combination of a grid.

    The same call with the same `out` goes on after any interruption: finished trainings are not
    repeated, a stopped one is resumed. A larger grid may follow in the same folder. What is there
    is verified: figures that are damaged or of other dictionaries are measured anew, dictionaries
    that are damaged are trained anew, both with a warning.

    Args:
        model: see `load_model`.
        data: text, the same for every training; part of it is held out for the figures.
        out: folder of the trainings, the table and the picture.
        grid: what to train.
        tokens: to train each on.
        layers: which; by default all.
        measure_tokens: tokens of held-out text to measure each on.
        cache: folder of caches of the activations, one for all that read and write the same sites;
            without it every training reads the text anew.
        picture: .svg or .png to draw; `sweep.svg` in `out` by default.
        seed: of the text (the specimen's corpus), not of the trainings.
        checkpoint_seconds: how often a training saves.
        on_progress: told of every step.

    Raises:
        ConfigError: settings that do not fit the model or each other, before anything is trained.
        CheckpointError: `out` holds a sweep of another model, text or length.
        DataError: text that cannot be read or learned from.
        StorageError: the disk refuses.
        TrainingStoppedError: Ctrl-C or SIGTERM; the same call goes on.
    """
    began = time.perf_counter()
    out = Path(out)
    drawn = out / PICTURE if picture is None else Path(picture)
    check_picture(drawn)
    for name, value in (("tokens", tokens), ("measure_tokens", measure_tokens)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; give a positive number")
    text = open_text(data, seed=seed)
    configs = grid.configs()
    targets = {kind: _target(model, kind, layers) for kind in grid.kinds}
    claim_folder(
        out,
        {
            "model": model.fingerprint(),
            "text": text.fingerprint,
            "tokens": tokens,
            "layers": None if layers is None else sorted(layers),
            "measure_tokens": measure_tokens,
            "batch_tokens": grid.batch_tokens,
        },
        "a sweep",
    )
    rows = []
    for number, (name, config) in enumerate(configs.items(), start=1):
        folder, kept = out / name, out / f"{name}.json"
        row = _kept(kept, folder)
        if row is None:
            row = _row(
                model,
                text,
                folder,
                config,
                targets[config.kind],
                measure_tokens=measure_tokens,
                tell=_teller(on_progress, name, number, len(configs)),
                tokens=tokens,
                layers=layers,
                cache=None if cache is None else Path(cache) / targets[config.kind],
                checkpoint_seconds=checkpoint_seconds,
            )
            save_row(row, kept, folder)
        rows.append(row)
    save_picture(sweep_picture(rows), drawn)
    return SweepResult(
        rows=tuple(rows),
        front=_fronts(rows),
        table=save_table(rows, out / TABLE),
        picture=drawn,
        seconds=time.perf_counter() - began,
    )


def _target(model: LanguageModel, kind: str, layers: Sequence[int] | None) -> str:
    """The kind of site that a kind of dictionary writes, all its sites checked."""
    sites = layer_sites(model, kind, layers=layers)
    site_widths(model, [site for pair in sites.values() for site in pair])
    return str(next(iter(sites.values())).write).split("@")[0]


def _teller(
    on_progress: Callable[[SweepProgress], None] | None, name: str, run: int, runs: int
) -> Callable[[TrainProgress | None], None]:
    def tell(training: TrainProgress | None) -> None:
        if on_progress is not None:
            on_progress(SweepProgress(name=name, run=run, runs=runs, training=training))

    return tell


def _row(
    model: LanguageModel,
    text: TextSource,
    folder: Path,
    config: TrainConfig,
    target: str,
    *,
    measure_tokens: int,
    tell: Callable[[TrainProgress | None], None],
    **options: Any,
) -> SweepRow:
    """Train one combination, or go on with it, and measure it."""
    tell(None)
    _put_aside_if_damaged(folder)
    result = train(
        model,
        text,
        folder,
        config=config,
        resume=folder.exists(),
        held_out_tokens=measure_tokens,
        on_progress=tell,
        **options,
    )
    own = load_dictionaries(folder, device=model.device)
    tell(None)
    measured = evaluate(model, own, text, tokens=measure_tokens, layerwise=False, tasks=False)
    return make_row(folder.name, config, target, measured, result.tokens / result.tokens_per_second)


def _kept(kept: Path, folder: Path) -> SweepRow | None:
    """The row of a training that is over; None, with a warning, where that cannot be trusted."""
    if not kept.exists():
        return None
    try:
        return load_row(kept, folder)
    except CheckpointError as error:
        logger.warning("%s: not taken as it is, because %s", folder.name, error)
        return None


def _put_aside_if_damaged(folder: Path) -> None:
    """Make room to train anew where finished dictionaries are no longer whole."""
    if not (folder / MANIFEST_NAME).exists():
        return
    try:
        read_manifest(folder, kind=ARTIFACT_KIND)
    except CheckpointError as error:
        aside = folder.with_name(f"{folder.name}.damaged")
        logger.warning("%s: moved to %s and trained anew, because %s", folder.name, aside, error)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)


def _fronts(rows: Sequence[SweepRow]) -> dict[str, dict[str, list[str]]]:
    fronts: dict[str, dict[str, list[str]]] = {}
    for target in dict.fromkeys(row.target for row in rows):
        found = {measure: points(rows, target, measure) for measure in MEASURES}
        fronts[target] = {
            measure: [name for point in pareto_front(each) for name in point.names]
            for measure, each in found.items()
            if each
        }
    return fronts
