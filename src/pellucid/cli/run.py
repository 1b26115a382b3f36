"""What every verb shares: the common options, the two output streams, and the exit codes."""

import functools
import inspect
import json
import logging
import math
import os
import resource
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType

from pellucid.cli import progress
from pellucid.cli.values import parse_count, parse_seed

if TYPE_CHECKING:
    from pellucid.training import TrainProgress
    from pellucid.training.finetune import FinetuneProgress

DEBUG_VARIABLE = "PELLUCID_DEBUG"
"""Set to 1 for tracebacks and the warnings of libraries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One invocation: its common options and where its output goes.

    With `--json` the only thing on standard output is one JSON object; progress and remarks are
    on standard error, and `--quiet` silences those.
    """

    json: bool
    seed: int
    device: str
    quiet: bool
    results: Console = field(default_factory=Console)
    remarks: Console = field(default_factory=lambda: Console(stderr=True))

    def remark(self, text: str) -> None:
        """Tell the person at the terminal something that is not a result."""
        if not self.quiet:
            self.remarks.print(text, style="dim", markup=False, highlight=False)

    def counter(self, what: str) -> AbstractContextManager[progress.Counter]:
        """A progress bar that counts; `--quiet` hides it."""
        return progress.counting(self.remarks, what, shown=not self.quiet)

    def training(
        self, *, shown: bool = True
    ) -> AbstractContextManager[tuple[Callable[["TrainProgress"], None], progress.Cached]]:
        """A progress bar for training, and caching before it; `--quiet` hides it.

        Args:
            shown: whether this process is the one that shows it.
        """
        return progress.training(self.remarks, shown=shown and not self.quiet)

    def finetuning(self) -> AbstractContextManager[Callable[["FinetuneProgress"], None]]:
        """A progress bar for fine-tuning; `--quiet` hides it."""
        return progress.finetuning(self.remarks, shown=not self.quiet)

    def stages(self) -> AbstractContextManager[progress.Stages]:
        """A progress bar over named stages; `--quiet` hides it."""
        return progress.staging(self.remarks, shown=not self.quiet)

    def report(self, record: dict[str, Any], *shown: RenderableType) -> None:
        """Give the results: `record` as JSON under `--json`, else `shown` for a reader."""
        if self.json:
            typer.echo(json.dumps(finite(record), allow_nan=False))
        else:
            for part in shown:
                self.results.print(part, markup=False, highlight=False)


def finite(value: Any) -> Any:
    """The same JSON-able value with every NaN and infinity replaced by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def peak_megabytes() -> float:
    """The most memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


_COMMON: dict[str, tuple[Any, Any]] = {
    "json": (
        Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")],
        False,
    ),
    "seed": (
        Annotated[
            int,
            typer.Option("--seed", parser=parse_seed, metavar="N", help="Seed of all randomness."),
        ],
        0,
    ),
    "device": (
        Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1.")],
        "cpu",
    ),
    "threads": (
        Annotated[
            int | None,
            typer.Option(
                "--threads",
                parser=parse_count,
                metavar="N",
                help="CPU threads; torch's choice if not given.",
            ),
        ],
        None,
    ),
    "quiet": (Annotated[bool, typer.Option("--quiet", help="No progress, no remarks.")], False),
}


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Make a verb of a function whose first parameter is the `Run`.

    The command takes the function's other parameters and the common options; the wrapper applies
    the common options and passes the rest on.
    """
    signature = inspect.signature(function)
    own = list(signature.parameters.values())[1:]
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        for name, (hint, default) in _COMMON.items()
    ]

    @functools.wraps(function)
    def command(**values: Any) -> None:
        shared = {name: values.pop(name) for name in _COMMON}
        _prepare_process(shared.pop("threads"), quiet=shared["quiet"])
        function(Run(**shared), **values)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + common
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return command


def _prepare_process(threads: int | None, *, quiet: bool) -> None:
    """Apply the process-wide settings. Only the command line does this, never the library."""
    import torch
    from transformers.utils import logging as transformers_logging

    from pellucid.core.allocation import keep_freed_memory

    if os.environ.get(DEBUG_VARIABLE) != "1":
        warnings.simplefilter("ignore")
        transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    level = logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(format="%(message)s", level=level, force=True)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
