"""`pellucid plan`: what a training needs and how long it takes, before anything is spent."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.cli.train import (
    CacheDtype,
    CacheOrder,
    Packing,
    Precision,
    Stored,
    dictionary_size,
)
from pellucid.cli.values import parse_count, parse_counts, parse_layers
from pellucid.core.errors import ConfigError

if TYPE_CHECKING:
    from pellucid.training.planning import Plan


def plan(
    run: Run,
    model: options.Model,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Text to measure with, random tokens if there is none; as of train.",
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="transcoder, skip-transcoder, sae or clt (cross-layer).")
    ] = "transcoder",
    activation: Annotated[
        str, typer.Option("--activation", help="topk, batchtopk, jumprelu or relu.")
    ] = "topk",
    features: Annotated[
        int | None,
        typer.Option("--features", parser=parse_count, metavar="F", help="Features a dictionary."),
    ] = None,
    expansion: Annotated[
        int | None,
        typer.Option(
            "--expansion",
            parser=parse_count,
            metavar="X",
            help="Features as a multiple of the width, 32 by default.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", metavar="K", help="Active features a token.")] = 32,
    prefixes: Annotated[
        str, typer.Option("--prefixes", metavar="F,F", help="Matryoshka: sizes of first parts.")
    ] = "",
    average: Annotated[
        float | None, typer.Option("--average", help="Keep a running mean of the weights.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", metavar="0-3", help="Which layers; all by default.")
    ] = None,
    tokens: options.Tokens = 2_000_000,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", parser=parse_count, metavar="N", help="Tokens a step.")
    ] = 4096,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="Of matrix products: auto is bfloat16 where the device multiplies it natively, "
            "as stated GPUs are taken to do.",
        ),
    ] = "auto",
    store: Annotated[
        Stored, typer.Option("--store", help="What the dictionaries are stored as.")
    ] = "float32",
    context_length: Annotated[
        int | None,
        typer.Option(
            "--context-length",
            parser=parse_count,
            metavar="N",
            help="Tokens read at once, up to 256 by default.",
        ),
    ] = None,
    packing: Annotated[
        Packing,
        typer.Option("--packing", help="Rows of one document, or filled with several."),
    ] = "documents",
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Where a cache of the activations would be."),
    ] = None,
    cache_dtype: Annotated[
        CacheDtype | None,
        typer.Option("--cache-dtype", help="What it would store, float32 by default."),
    ] = None,
    cache_order: Annotated[
        CacheOrder,
        typer.Option("--cache-order", help="As live training reads, or shuffled throughout."),
    ] = "text",
    read: Annotated[
        str | None,
        typer.Option("--read", metavar="PATH", help="Read the input of this module; as of train."),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option("--write", metavar="PATH", help="Predict the output of this module."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where it would be trained: whose disk.")
    ] = Path(),
    gpus: Annotated[
        int,
        typer.Option(
            "--gpus",
            parser=parse_count,
            metavar="N",
            help="Processes that train together, one a GPU; on a CPU, processes of this machine.",
        ),
    ] = 1,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="data=N,layers=N,features=N",
            help="How they share the work; every way is looked at by default.",
        ),
    ] = "",
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware",
            metavar="tflops=N,memory=N,bandwidth=N",
            help="State what each process has instead of measuring here: TFLOPS, GB, GB/s of "
            "memory; also link=N (GB/s between processes) and efficiency=N (of tflops).",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory", metavar="GB", help="Memory each process has; what is free if not given."
        ),
    ] = None,
    probe_seconds: Annotated[
        float,
        typer.Option("--probe-seconds", metavar="S", help="How long to measure, about."),
    ] = 30.0,
) -> None:
    """Say what a training would need and how long it would take.

    Memory of a process by what it is for, disk, tokens a second and hours, and how several
    processes should share the work. Speed is measured on a few blocks of text and a few steps,
    or computed from stated hardware, for which no weights are loaded. Exits with 2 when the
    training does not fit.
    """
    import torch

    from pellucid import api
    from pellucid.training.planning import parse_hardware
    from pellucid.training.planning import plan as make_plan

    stated = None if hardware is None else parse_hardware(hardware)
    chosen = None if layers is None else options.parsed("--layers", parse_layers, layers)
    parts = options.parsed("--prefixes", parse_counts, prefixes) if prefixes else ()
    by_path = read is not None or write is not None
    size: dict[str, Any] = {**dictionary_size(features, expansion)}
    gpu = run.device.partition(":")[0] == "cuda"
    with run.stages() as on_stage:
        loaded = api.load_model(model, device=run.device, generic=by_path, weights=stated is None)
        text = options.SPECIMEN if data is None and model == options.SPECIMEN else data
        found = make_plan(
            loaded,
            text if stated is None else None,
            tokens=tokens,
            layers=chosen,
            read=read,
            write=write,
            context_length=context_length,
            packing=packing,
            cache=cache,
            cache_dtype=cache_dtype,
            cache_order=cache_order,
            store_dtype=getattr(torch, store),
            out=out,
            processes=gpus,
            layout=layout,
            gpu=gpu,
            hardware=stated,
            memory=None if memory is None else int(memory * 10**9),
            probe_seconds=probe_seconds,
            on_probe=on_stage,
            kind=kind,
            activation=activation,
            k=k,
            prefixes=parts,
            average=average,
            batch_tokens=batch_tokens,
            precision=precision,
            seed=run.seed,
            **size,
        )
    run.report(found.to_json(), *_shown(found))
    if found.problems:
        raise ConfigError(_refusal(found))


def _shown(found: "Plan") -> list[RenderableType]:
    record = found.to_json()
    training, sizes = found.training, record["disk"]
    features = " and ".join(f"{count:,}" for count in dict.fromkeys(record["features"]))
    lines: list[RenderableType] = [
        f"{len(record['layers'])} {record['kind']} dictionaries of {features} features: "
        f"{record['parameters'] / 1e6:,.1f}M parameters",
        _memory_table(found),
    ]
    lines += [f"{moment}: {_size(size)}" for moment, size in found.best.memory.moments.items()]
    cache = f", cache {_size(sizes['cache'])}" if sizes["cache"] else ""
    lines.append(
        f"on disk: dictionaries {_size(sizes['dictionaries'])}, a checkpoint "
        f"{_size(sizes['checkpoint'])} (three at a time){cache}"
    )
    if len(found.options) > 1:
        lines.append(_layout_table(found))
    if training.plan.total_tokens and found.best.duration is not None:
        lines.append(_speed(found))
    lines.append(f"layout {record['layout']}: {record['reason']}")
    return lines + [f"note: {each}" for each in found.assumptions]


def _memory_table(found: "Plan") -> Table:
    table = Table("a process holds", "MiB", title="Memory while training")
    table.columns[1].justify = "right"
    for what, size in found.best.memory.rows.items():
        table.add_row(what, f"{size / 2**20:,.0f}")
    table.add_section()
    table.add_row("together", f"{found.best.memory.training / 2**20:,.0f}")
    table.add_row("there is", f"{found.available / 2**20:,.0f}")
    return table


def _layout_table(found: "Plan") -> Table:
    table = Table("layout", "memory", "fits", "time", "exchanging", title="Sharing the work")
    for each in found.options:
        time = each.duration
        table.add_row(
            str(each.layout),
            _size(each.memory.peak),
            "yes" if each.fits else "no",
            "" if time is None else _time(time.total),
            "" if time is None else f"{time.exchanging / time.training:.0%}",
        )
    return table


def _speed(found: "Plan") -> str:
    time, rate = found.best.duration, found.tokens_per_second
    assert time is not None and rate is not None
    parts = [f"harvesting {_time(time.harvesting)}", f"steps {_time(time.stepping)}"]
    if time.exchanging:
        parts.append(f"exchanging {_time(time.exchanging)}")
    if time.caching:
        parts.append(f"making the cache {_time(time.caching)}")
    return (
        f"{found.training.plan.total_tokens:,} tokens at {rate:,.0f} a second: "
        f"{_time(time.total)} ({', '.join(parts)}; {found.speed})"
    )


def _refusal(found: "Plan") -> str:
    what = "; ".join(found.problems)
    if found.remedies:
        return f"{what}; it would fit with {' or '.join(found.remedies)}"
    return f"{what}; use a larger machine or disk, or train less at once"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} s"


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
