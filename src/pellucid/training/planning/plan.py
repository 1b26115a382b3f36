"""The plan of a training: what it needs, whether that is there, and how to share the work."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid.core.config import config_from_dict
from pellucid.core.errors import ConfigError
from pellucid.distributed.layout import Layout, parse_layout
from pellucid.harvest.cache.storage import STORAGE
from pellucid.harvest.config import ForwardPrecision
from pellucid.harvest.live import site_widths
from pellucid.harvest.rows import Packing
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.training.config import TrainConfig, check_positive
from pellucid.training.planning import disk
from pellucid.training.planning.hardware import GB, Hardware
from pellucid.training.planning.layouts import Option, layouts, options, reason
from pellucid.training.planning.machine import free_disk, free_memory
from pellucid.training.planning.memory import LIBRARIES, process_memory
from pellucid.training.planning.probe import OnProbe, Probe
from pellucid.training.planning.rates import Rates, stated_rates
from pellucid.training.planning.remedies import memory_remedies, shown
from pellucid.training.planning.shape import ModelShape, Training
from pellucid.training.run import RunPlan

LINKS = {"cpu": 1.0, "cuda": 50.0}
"""GB/s between processes where it is not stated: gloo on one machine, a modest GPU interconnect."""
PROBE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a training needs, and what there is.

    Attributes:
        training: what is planned.
        name: of the model.
        options: ways of sharing the work, the best first; one where a layout was asked for.
        reason: why the first is the first.
        rates: seconds of the parts; None where they could not be measured.
        speed: "measured", "stated" or "unknown".
        available: bytes of memory that each process has.
        disks: by what is written, bytes needed and free; none of a machine that is stated.
        remedies: what would make it fit, where it does not.
        assumptions: what the figures rest on.
        stored: bytes of a value of the finished dictionaries.
    """

    training: Training
    name: str
    options: tuple[Option, ...]
    reason: str
    rates: Rates | None
    speed: str
    available: int
    disks: Mapping[str, tuple[int, int]]
    remedies: tuple[str, ...]
    assumptions: tuple[str, ...]
    stored: int

    @property
    def best(self) -> Option:
        """The layout to take."""
        return self.options[0]

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not fit, in words."""
        found = []
        peak = self.best.memory.peak
        if peak > self.available:
            found.append(f"a process needs {shown(peak)} and has {shown(self.available)}")
        for what, (needed, free) in self.disks.items():
            if needed > free:
                found.append(
                    f"{what} needs {needed / GB:.3g} GB of disk and {free / GB:.3g} are free"
                )
        return tuple(found)

    @property
    def tokens_per_second(self) -> float | None:
        """Of harvesting and training together, as a run reports it."""
        time = self.best.duration
        return self.training.plan.total_tokens / time.training if time else None

    def to_json(self) -> dict[str, Any]:
        """Its plain form; sizes in bytes, times in hours, rates in seconds."""
        training, best, time = self.training, self.best, self.best.duration
        return {
            "model": self.name,
            "kind": training.config.kind,
            "activation": training.config.activation,
            "layers": list(training.plan.sites),
            "features": [training.dictionary(layer).features for layer in training.plan.sites],
            "tokens": training.plan.total_tokens,
            "parameters": disk.parameters(training),
            "memory": {
                "peak": best.memory.peak,
                "available": self.available,
                "rows": best.memory.rows,
                "moments": best.memory.moments,
            },
            "disk": {
                "cache": disk.cache_bytes(training),
                "checkpoint": disk.checkpoint_bytes(training),
                "dictionaries": disk.dictionary_bytes(training, value_bytes=self.stored),
                "needed": {what: needed for what, (needed, _) in self.disks.items()},
                "free": {what: free for what, (_, free) in self.disks.items()},
            },
            "speed": {
                "from": self.speed,
                "tokens_per_second": self.tokens_per_second,
                "hours": time and time.total / 3600,
                "harvesting_hours": time and time.harvesting / 3600,
                "stepping_hours": time and time.stepping / 3600,
                "exchanging_hours": time and time.exchanging / 3600,
                "caching_hours": time and time.caching / 3600,
            },
            "layout": str(best.layout),
            "reason": self.reason,
            "layouts": [each.to_json() for each in self.options],
            "fits": not self.problems,
            "problems": list(self.problems),
            "remedies": list(self.remedies),
            "assumptions": list(self.assumptions),
        }


def plan(
    model: LanguageModel,
    data: str | Path | TextSource | Sequence[str | Path | TextSource] | None = None,
    *,
    config: TrainConfig | None = None,
    tokens: int = 2_000_000,
    layers: Sequence[int] | None = None,
    read: str | None = None,
    write: str | None = None,
    context_length: int | None = None,
    shuffle_tokens: int | None = None,
    forward_precision: ForwardPrecision | None = None,
    packing: Packing = "documents",
    exclude_high_norm: float | None = None,
    cache: str | Path | None = None,
    cache_dtype: str | None = None,
    cache_order: str = "text",
    store_dtype: torch.dtype = torch.float32,
    out: str | Path = ".",
    processes: int = 1,
    layout: str = "",
    gpu: bool | None = None,
    hardware: Hardware | None = None,
    memory: int | None = None,
    probe_seconds: float = PROBE_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
    on_probe: OnProbe | None = None,
    **settings: Any,
) -> Plan:
    """What a training would need and how long it would take; nothing is trained or kept.

    Speed is measured here, on a few blocks of text and a few steps, or computed from hardware that
    is stated.

    Args:
        model: see `load_model`; one without weights will do where hardware is stated.
        data: text for the measurement; random tokens by default.
        config: as of `train`, as are the settings down to `cache_order`.
        tokens: how many to train on.
        layers: which layers.
        read: module path or site to read.
        write: module path or site to write.
        context_length: tokens the model reads at once.
        shuffle_tokens: tokens shuffled together.
        forward_precision: of the model's forward pass.
        packing: "documents" or "packed" rows.
        exclude_high_norm: a multiple of the median norm.
        cache: folder of a cache that the training would use.
        cache_dtype: what that cache stores.
        cache_order: "text" or "shuffled".
        store_dtype: what the finished dictionaries would be stored as.
        out: folder that the training would write; its disk is looked at.
        processes: how many train together, one a GPU.
        layout: how they share the work; by default every way is looked at.
        gpu: whether they run on GPUs; by default if the model is on one.
        hardware: what each process has; by default it is measured here.
        memory: bytes each process has; by default what is free here, shared by all of them.
        probe_seconds: how long the measurement may take, about.
        clock: seconds that the measurement counts; processor seconds on a machine that is busy.
        on_probe: told what is being measured.
        settings: fields of `TrainConfig`, where `config` is not given.

    Raises:
        ConfigError: settings that do not fit each other or the model, or nothing to measure.
        SiteError: the model has no such site.
        DataError: text that cannot be read.
    """
    if config is not None and settings:
        raise ConfigError(f"give config or {', '.join(settings)}, not both")
    config = config or config_from_dict(TrainConfig, settings)
    check_positive(tokens=tokens, shuffle_tokens=shuffle_tokens, processes=processes, memory=memory)
    on_gpu = model.device.type == "cuda" if gpu is None else gpu
    if hardware is not None and on_gpu and config.precision == "auto":
        config = replace(config, precision="bfloat16")
    config = config.decided(model.device)
    training = _training(
        RunPlan.of(
            model,
            config,
            tokens=tokens,
            layers=layers,
            read=read,
            write=write,
            context_length=context_length,
            shuffle_tokens=shuffle_tokens,
            forward_precision=forward_precision,
            packing=packing,
            exclude_high_norm=exclude_high_norm,
        ),
        model,
        cache,
        cache_dtype,
        cache_order,
    )
    _check_measurable(model, hardware)
    found = _layouts(training, processes, layout)
    available = memory or _memory(model, hardware, processes)
    text = None if data is None else open_text(data, seed=config.seed).split("train")
    probe = Probe(
        training, model, text, probe_seconds, clock, on_probe or (lambda what, share: None)
    )
    rates, speed, assumptions = _rates(training, hardware, probe, on_gpu, available, processes)
    every = options(training, found, rates, available=available, gpu=on_gpu)
    remedies: list[str] = []
    if not every[0].fits:
        best = every[0].layout
        remedies = memory_remedies(training, best, available=available, gpu=on_gpu)
    return Plan(
        training=training,
        name=model.name,
        options=tuple(every),
        reason=reason(every) if not layout else "the one asked for",
        rates=rates,
        speed=speed,
        available=available,
        disks=_disks(training, out, cache) if hardware is None else {},
        remedies=tuple(remedies),
        assumptions=tuple(assumptions),
        stored=store_dtype.itemsize,
    )


def _training(
    plan: RunPlan,
    model: LanguageModel,
    cache: str | Path | None,
    dtype: str | None,
    order: str,
) -> Training:
    if cache is None and (dtype is not None or order != "text"):
        raise ConfigError("cache_dtype and cache_order are of a cache; give its folder too")
    stored = None if cache is None else dtype or "float32"
    if stored is not None:
        STORAGE[stored]  # refuses an unknown name
    sites = list(dict.fromkeys(site for pair in plan.sites.values() for site in pair))
    return Training(
        plan=plan,
        widths=site_widths(model, sites),
        model=ModelShape.of(model, sites, plan.harvest.context_length),
        cache=stored,
        shuffled=order == "shuffled",
    )


def _check_measurable(model: LanguageModel, hardware: Hardware | None) -> None:
    if hardware is None and model.device.type == "meta":
        raise ConfigError(
            f"{model.name} was loaded without weights, so nothing can be measured on it; load "
            "them, or state hardware (tflops=67,memory=80,bandwidth=3350)"
        )


def _layouts(training: Training, processes: int, layout: str) -> list[Layout]:
    """The layouts to look at."""
    every = list(layouts(training, processes))
    if not layout:
        if not every:
            raise ConfigError(
                f"{processes} processes cannot share this training: neither its batch, its layers "
                "nor its features part evenly; give another number"
            )
        return every
    asked = parse_layout(layout, processes)
    if asked not in every:
        raise ConfigError(
            f"the layout {asked} does not suit this training; use one of "
            f"{' or '.join(map(str, every)) or 'no layout of so many processes'}"
        )
    return [asked]


def _memory(model: LanguageModel, hardware: Hardware | None, processes: int) -> int:
    """Bytes that each process has: on a CPU what is free, and what this process gives back."""
    if hardware is not None:
        return int(hardware.memory * GB)
    free = free_memory(model.device)
    if model.device.type != "cpu":
        return free
    own = sum(tensor.nbytes for tensor in model.module.parameters())
    return (free + own + LIBRARIES) // processes


def _rates(
    training: Training,
    hardware: Hardware | None,
    probe: Probe,
    gpu: bool,
    available: int,
    processes: int,
) -> tuple[Rates | None, str, list[str]]:
    """Seconds of the parts, where they are from, and what they rest on."""
    link = LINKS["cuda" if gpu else "cpu"]
    if hardware is not None:
        return (
            stated_rates(training, hardware),
            "stated",
            [
                f"speed is an estimate: matrix products at {hardware.efficiency:.0%} of "
                f"{hardware.tflops:g} TFLOPS, the rest at {hardware.bandwidth:g} GB/s of memory; "
                "tokenising costs nothing",
                f"processes exchange {hardware.link:g} GB/s each, while nothing else goes on",
                "its disks are not looked at",
            ],
        )
    one = process_memory(training, Layout(), gpu=gpu)
    if one.rows["parameters"] + one.rows["Adam's moments"] > available * len(training.plan.sites):
        return None, "unknown", ["speed was not measured: not even one dictionary fits here"]
    notes = [f"measured here on {torch.get_num_threads()} thread(s); other work slows it down"]
    if probe.text is None:
        notes.append("without --data the model ran on random tokens, and reading text is left out")
    if processes > 1:
        notes.append(f"processes exchange {link:g} GB/s each, and are as fast as this one")
    return probe.rates(link * GB), "measured", notes


def _disks(
    training: Training, out: str | Path, cache: str | Path | None
) -> dict[str, tuple[int, int]]:
    """What this machine's disks are asked for, and have."""
    found = {"the folder of the run": (disk.run_bytes(training), free_disk(Path(out)))}
    if cache is not None:
        found["the cache"] = (disk.cache_bytes(training), free_disk(Path(cache)))
    return found
