"""What would make a training fit that does not."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from pellucid.distributed.layout import Layout
from pellucid.training.planning.layouts import layouts
from pellucid.training.planning.memory import MB, process_memory
from pellucid.training.planning.shape import Training

_MOST_PROCESSES = 1024
_FEATURES_IN = 1024  # a number of features that is proposed is a multiple of it, if it can be


def memory_remedies(training: Training, layout: Layout, *, available: int, gpu: bool) -> list[str]:
    """Changes of one thing each that make a process fit into the memory there is, in words.

    Args:
        training: what does not fit.
        layout: of its processes.
        available: bytes a process has.
        gpu: whether that is a GPU's memory.
    """

    def fits(changed: Training, under: Layout = layout) -> bool:
        return process_memory(changed, under, gpu=gpu).peak <= available

    found = []
    if processes := _more_processes(training, layout.processes, fits):
        found.append(f"{processes.processes} processes with --layout {processes}")
    for what, changed in _smaller(training):
        if fits(changed):
            found.append(what)
    if features := _fewer_features(training, layout, fits):
        found.append(f"--features {features}")
    return found


def _more_processes(
    training: Training, processes: int, fits: Callable[[Training, Layout], bool]
) -> Layout | None:
    """The layout of the fewest more processes that fits."""
    count = 2 * processes
    while count <= _MOST_PROCESSES:
        for layout in layouts(training, count):
            if fits(training, layout):
                return layout
        count *= 2
    return None


def _smaller(training: Training) -> Iterator[tuple[str, Training]]:
    """The same training with less of something that is not the dictionaries."""
    plan, config = training.plan, training.config
    if plan.fill_batches > 1:
        few = max(1, plan.fill_batches // 8)
        yield (
            f"shuffle_tokens={few * config.batch_tokens} in Python (a smaller buffer)",
            replace(training, plan=replace(plan, fill_batches=few)),
        )
    if config.batch_tokens > 1024:
        fewer = replace(config, batch_tokens=1024)
        fill = max(1, plan.fill_batches * config.batch_tokens // 1024)
        changed = replace(plan, config=fewer, fill_batches=fill)
        yield "--batch-tokens 1024", replace(training, plan=changed)
    if config.precision == "bfloat16":
        full = replace(plan, config=replace(config, precision="float32"))
        yield "--precision float32 (no second copy of encoders)", replace(training, plan=full)
    if config.average is not None:
        plain = replace(plan, config=replace(config, average=None))
        yield "no --average", replace(training, plan=plain)
    if len(plan.sites) > 1 and config.kind != "clt":
        layer = next(iter(plan.sites))
        one = replace(plan, sites={layer: plan.sites[layer]})
        wanted = {site: training.widths[site] for site in plan.sites[layer]}
        yield "one layer at a time (--layers)", replace(training, plan=one, widths=wanted)


def _fewer_features(
    training: Training, layout: Layout, fits: Callable[[Training], bool]
) -> int | None:
    """The most features that fit, rounded down."""
    config = training.config
    unit = _FEATURES_IN if layout.features == 1 else _FEATURES_IN * layout.features
    least = max([config.k, *config.prefixes])
    widest = max(training.dictionary(layer).features for layer in training.plan.sites)

    def possible(units: int) -> bool:
        if units * unit < least:
            return False
        changed = replace(config, num_features=units * unit)
        return fits(replace(training, plan=replace(training.plan, config=changed)))

    low, high = 0, widest // unit
    while low < high:
        middle = (low + high + 1) // 2
        if possible(middle):
            low = middle
        else:
            high = middle - 1
    return low * unit or None


def shown(size: int) -> str:
    """Bytes for a reader."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / MB:.3g} MiB"
