"""`pellucid train`: dictionaries for a model, from text."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pellucid.cli import options
from pellucid.cli.finetune import BEFORE, Finetune, run_finetune
from pellucid.cli.run import Run
from pellucid.cli.train_flags import check_flags
from pellucid.cli.values import parse_count, parse_counts, parse_layers
from pellucid.core.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]
DecoderNorm = Literal["free", "unit"]
Stored = Literal["float32", "float16"]
CacheDtype = Literal["float32", "bfloat16", "float16", "int8"]
CacheOrder = Literal["text", "shuffled"]
Packing = Literal["documents", "packed"]
_SETTINGS = [
    *("kind", "activation", "k", "sparsity", "decoder_norm", "average"),
    *("batch_tokens", "learning_rate", "precision"),
]

_OF_THE_RUN = [
    *("tokens", "read", "write", "context_length", "packing", "exclude_high_norm", "field"),
    *("cache", "cache_dtype", "cache_order", "measure_every", "resume"),
]


def train(
    run: Run,
    context: typer.Context,
    model: options.Model,
    out: options.OutFolder,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="DATA[=WEIGHT]",
            help="File, folder, datasets name, or specimen (the default for the specimen). May be "
            "repeated, with weights: shares of the characters.",
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
        str,
        typer.Option(
            "--prefixes",
            metavar="F,F",
            help="Matryoshka: sizes of first parts that reconstruct alone too, as in 256,1024.",
        ),
    ] = "",
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", help="Weight of the penalty of relu (L1) and jumprelu (L0)."),
    ] = None,
    decoder_norm: Annotated[
        DecoderNorm, typer.Option("--decoder-norm", help="Of each feature: unit keeps it at 1.")
    ] = "free",
    average: Annotated[
        float | None,
        typer.Option(
            "--average", help="Save a running mean of the weights that keeps this share a step."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", metavar="0-3", help="Which layers; all by default.")
    ] = None,
    tokens: options.Tokens = 2_000_000,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", parser=parse_count, metavar="N", help="Tokens a step.")
    ] = 4096,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="Adam's peak rate; falls with the square root of F."),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="Of the encoder's matrix product and the model's forward pass: auto is bfloat16 "
            "where the device multiplies it natively.",
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
    exclude_high_norm: Annotated[
        float | None,
        typer.Option(
            "--exclude-high-norm",
            metavar="X",
            help="Leave out tokens of a norm above X times the median, such as 10.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Cache of the activations: used, completed or made as needed.",
        ),
    ] = None,
    cache_dtype: Annotated[
        CacheDtype | None,
        typer.Option("--cache-dtype", help="What a new cache stores, float32 by default."),
    ] = None,
    cache_order: Annotated[
        CacheOrder,
        typer.Option("--cache-order", help="As live training reads, or shuffled throughout."),
    ] = "text",
    field: Annotated[
        str | None,
        typer.Option("--field", help="Field or column of the text in --data, text by default."),
    ] = None,
    read: Annotated[
        str | None,
        typer.Option(
            "--read",
            metavar="PATH",
            help="Read the input of this module; {layer} stands for the layer's number.",
        ),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option("--write", metavar="PATH", help="Predict the output of this module."),
    ] = None,
    measure_every: Annotated[
        int | None,
        typer.Option(
            "--measure-every",
            parser=parse_count,
            metavar="N",
            help="Tokens between two measurements of quality on held-out text.",
        ),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track", metavar="NAME", help="Draw curves: tensorboard, wandb. Repeatable."
        ),
    ] = None,
    finetune: Annotated[
        Finetune | None,
        typer.Option(
            "--finetune",
            help="Then train end to end, all MLPs replaced, lowering the KL divergence at the "
            "output; local is the control without it.",
        ),
    ] = None,
    finetune_tokens: Annotated[
        int | None,
        typer.Option(
            "--finetune-tokens",
            parser=parse_count,
            metavar="N",
            help="Tokens of that, 1M by default.",
        ),
    ] = None,
    dictionaries: Annotated[
        str | None,
        typer.Option(
            "--dictionaries",
            metavar="DICTS",
            help="Fine-tune these (folder, hub id, specimen) instead of training new ones.",
        ),
    ] = None,
    resume: options.Resume = False,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            "--checkpoint-every",
            metavar="SECONDS",
            help="Seconds between two checkpoints; 0 is after every step.",
        ),
    ] = 300.0,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="data=N,layers=N,features=N",
            help="How the processes of torchrun share the work; all of them data by default.",
        ),
    ] = "",
) -> None:
    """Train dictionaries on a model's activations.

    One dictionary a layer; all layers are trained in one pass. A run that is stopped or killed
    goes on with --resume and ends with the same weights. Figures at the end are taken on held-out
    text. With --finetune the dictionaries of ordinary training stay in DIR/before. Under torchrun
    the processes train together (--layout).
    """
    import torch

    from pellucid import api
    from pellucid.cli.tables import fidelity_table
    from pellucid.distributed.processes import joined, under_torchrun, world_size
    from pellucid.training import train as run_training

    by_path = read is not None or write is not None
    check_flags(context, under_torchrun=under_torchrun(), processes=world_size())
    sources = data or [options.or_specimen(None, model, "--data")]
    finetuning: dict[str, Any] = {"objective": finetune, "tokens": finetune_tokens}
    finetuning |= {"store": getattr(torch, store), "context_length": context_length}
    finetuning |= {"field": field, "resume": resume, "checkpoint_seconds": checkpoint_every}
    if dictionaries is not None:
        loaded = api.load_model(model, device=run.device)
        run_finetune(run, loaded, dictionaries, sources, out, ordinary=None, **finetuning)
        return
    chosen = None if layers is None else options.parsed("--layers", parse_layers, layers)
    folder = out if finetune is None else out / BEFORE
    with (
        joined(layout, run.device) as processes,
        run.training(shown=processes.first) as (on_step, on_cache),
    ):
        if not processes.first:
            logging.getLogger("pellucid").setLevel(logging.ERROR)
        loaded = api.load_model(model, device=processes.device, generic=by_path)
        result = run_training(
            loaded,
            sources,
            folder,
            layers=chosen,
            track=track or (),
            store_dtype=getattr(torch, store),
            checkpoint_seconds=checkpoint_every,
            on_progress=on_step,
            on_cache=on_cache,
            processes=processes,
            **{name: context.params[name] for name in _OF_THE_RUN},
            **_settings(context.params, run.seed),
        )
    if finetune is not None:
        run_finetune(run, loaded, folder, sources, out, ordinary=result.to_json(), **finetuning)
    elif processes.first:
        run.report(
            result.to_json(),
            fidelity_table(result.layers),
            f"figures on {result.measured_on}; {result.tokens_per_second:,.0f} tokens/s",
            *_excluded(result.excluded_tokens),
            f"wrote {result.out}",
        )


def _excluded(tokens: int) -> list[str]:
    return [f"{tokens:,} tokens of high norm were left out of training"] if tokens else []


def _settings(given: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The fields of `TrainConfig` that the flags set."""
    settings = {name: given[name] for name in _SETTINGS} | {"seed": seed}
    if given["prefixes"]:
        settings["prefixes"] = options.parsed("--prefixes", parse_counts, given["prefixes"])
    return settings | dictionary_size(given["features"], given["expansion"])


def dictionary_size(features: int | None, expansion: int | None) -> dict[str, int]:
    """The field of `TrainConfig` that one of two flags sets.

    Raises:
        ConfigError: both are given.
    """
    if features is not None and expansion is not None:
        raise ConfigError(
            f"--features {features} and --expansion {expansion} both set the number of features; "
            "give one of them"
        )
    sizes = {"num_features": features, "expansion": expansion}
    return {name: value for name, value in sizes.items() if value is not None}
