"""The ways in which processes can share a training, and which of them to take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.distributed.layout import Layout
from pellucid.training.planning.memory import Memory, process_memory
from pellucid.training.planning.rates import Duration, Rates, duration
from pellucid.training.planning.shape import Training

_ABOUT_EQUAL = 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One layout.

    Attributes:
        layout: it.
        memory: of the process that needs most.
        duration: of the training; None where no speed is known.
        fits: whether a process has that memory.
    """

    layout: Layout
    memory: Memory
    duration: Duration | None
    fits: bool

    @property
    def seconds(self) -> float:
        """Of the whole training; 0 where no speed is known."""
        return self.duration.total if self.duration else 0.0

    @property
    def ways(self) -> int:
        """How many kinds of sharing it combines."""
        return sum(n > 1 for n in (self.layout.data, self.layout.layers, self.layout.features))

    def to_json(self) -> dict[str, Any]:
        """Its plain form."""
        known = self.duration
        return {
            "layout": str(self.layout),
            "memory": self.memory.peak,
            "fits": self.fits,
            "hours": known and known.total / 3600,
            "exchanging": known and known.exchanging / max(known.training, 1e-12),
        }


def layouts(training: Training, processes: int) -> Iterator[Layout]:
    """Every layout of so many processes that the training allows."""
    config, count = training.config, len(training.plan.sites)
    alone = config.kind == "clt" or training.plan.harvest.exclude_high_norm is not None
    features = [training.dictionary(layer).features for layer in training.plan.sites]
    for data in _divisors(processes):
        for layers in _divisors(processes // data):
            share = processes // data // layers
            if (
                config.batch_tokens % data == 0
                and layers <= (1 if alone else count)
                and all(each % share == 0 for each in features)
            ):
                yield Layout(data=data, layers=layers, features=share)


def options(
    training: Training,
    found: Sequence[Layout],
    rates: Rates | None,
    *,
    available: int,
    gpu: bool,
) -> list[Option]:
    """The layouts with what they cost, the best first: those that fit, then by time, then plain.

    Args:
        training: what is trained.
        found: the layouts to look at.
        rates: of one process, where a speed is known.
        available: bytes of memory that each process has.
        gpu: whether that is a GPU's.
    """
    every = []
    for layout in found:
        memory = process_memory(training, layout, gpu=gpu)
        time = None if rates is None else duration(training, rates, layout)
        fits = memory.peak <= available
        every.append(Option(layout=layout, memory=memory, duration=time, fits=fits))
    fitting = [each for each in every if each.fits]
    rest = sorted((each for each in every if not each.fits), key=lambda each: each.memory.peak)
    return [*_by_time(fitting), *rest]


def reason(every: Sequence[Option]) -> str:
    """Why the first of `options` is the first."""
    best, others = every[0], every[1:]
    if not best.fits:
        return "none fits; this one needs least memory"
    if not others:
        return "the only one that there is"
    fitting = [each for each in others if each.fits]
    if not fitting:
        return "the only one that fits"
    if best.duration is None:
        return "needs least memory"
    if any(each.seconds <= best.seconds for each in fitting):
        return "as fast as any that fits, and the plainest"
    return "the fastest that fits"


def _by_time(fitting: list[Option]) -> list[Option]:
    ordered = sorted(fitting, key=lambda each: (each.seconds, each.memory.peak))
    if not ordered or ordered[0].duration is None:
        return ordered
    bound = ordered[0].seconds * _ABOUT_EQUAL
    close = [each for each in ordered if each.seconds <= bound]
    return sorted(close, key=lambda each: (each.ways, each.seconds)) + ordered[len(close) :]


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
