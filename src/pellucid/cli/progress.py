"""Progress bars on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from pellucid.training import TrainProgress
    from pellucid.training.finetune import FinetuneProgress
    from pellucid.training.measure import Measured

Counter = Callable[[int, int], None]
"""Told how much is done and how much there is."""
Cached = Callable[[int, int], None]
"""Told how many tokens of how many are in a cache."""
Stages = Callable[[str, float], None]
"""Told the stage's name and the share of it that is done."""


def _bar(console: Console, *columns: TextColumn | MofNCompleteColumn, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not shown,
    )


@contextmanager
def counting(console: Console, what: str, *, shown: bool) -> Iterator[Counter]:
    """A bar that counts one kind of thing."""
    with _bar(console, MofNCompleteColumn(), shown=shown) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def training(
    console: Console, *, shown: bool
) -> Iterator[tuple[Callable[["TrainProgress"], None], Cached]]:
    """A bar over tokens, with the speed and the mean figures of all layers.

    Gives what is told of training, and before that of caching the activations.
    """
    figures = TextColumn("{task.fields[figures]}")
    with _bar(console, TextColumn("{task.percentage:>3.0f}%"), figures, shown=shown) as bar:
        task = bar.add_task("", total=None, figures="")

        def show(now: "TrainProgress") -> None:
            mean = {
                name: fmean(getattr(layer, name) for layer in now.layers)
                for name in ("fvu", "l0", "dead")
            }
            bar.update(
                task,
                description="training",
                completed=now.tokens,
                total=now.total_tokens,
                figures=f"{now.tokens_per_second:,.0f} tokens/s, FVU {mean['fvu']:.3f}, "
                f"L0 {mean['l0']:.1f}, dead {mean['dead']:.1%}",
            )
            if now.measured and shown:
                text = f"at {now.tokens:,} tokens: {_measured(now.measured)}"
                console.print(text, style="dim", highlight=False)

        def show_caching(done: int, total: int) -> None:
            bar.update(task, description="caching", completed=done, total=total)
            if done >= total:
                bar.reset(task, total=None, description="training")

        yield show, show_caching


def _measured(now: "Measured") -> str:
    dead, dense = (
        fmean(getattr(layer, name) for layer in now.layers) for name in ("dead", "dense")
    )
    shares = f"dead {dead:.1%}, dense {dense:.1%}"
    if now.kl is None:
        return shares
    return f"CE {now.ce:.4f} (original {now.original_ce:.4f}), KL {now.kl:.4f}, {shares}"


@contextmanager
def finetuning(console: Console, *, shown: bool) -> Iterator[Callable[["FinetuneProgress"], None]]:
    """A bar over tokens, with the speed, the KL divergence and the layers' mean FVU and L0."""
    figures = TextColumn("{task.fields[figures]}")
    with _bar(console, TextColumn("{task.percentage:>3.0f}%"), figures, shown=shown) as bar:
        task = bar.add_task("fine-tuning", total=None, figures="")

        def show(now: "FinetuneProgress") -> None:
            seen = now.figures
            divergence = "" if seen.kl is None else f"KL {seen.kl:.4f}, "
            bar.update(
                task,
                completed=now.tokens,
                total=now.total_tokens,
                figures=f"{now.tokens_per_second:,.0f} tokens/s, {divergence}"
                f"FVU {fmean(layer.fvu for layer in seen.layers):.4f}, "
                f"L0 {fmean(layer.l0 for layer in seen.layers):.1f}",
            )

        yield show


@contextmanager
def staging(console: Console, *, shown: bool) -> Iterator[Stages]:
    """A bar whose name is the stage at hand."""
    with _bar(console, TextColumn("{task.percentage:>3.0f}%"), shown=shown) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=share)
