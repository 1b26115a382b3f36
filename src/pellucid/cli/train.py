"""`pellucid train`: dictionaries for a model, from text."""

from typing import Annotated, Any, Literal

import typer

from pellucid.cli import options
from pellucid.cli.finetune import BEFORE, Finetune, check_flags, run_finetune
from pellucid.cli.run import Run
from pellucid.cli.values import parse_count, parse_layers
from pellucid.core.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
Stored = Literal["float32", "float16"]


def train(
    run: Run,
    context: typer.Context,
    model: options.Model,
    out: options.OutFolder,
    data: options.Data = None,
    kind: Annotated[
        str, typer.Option("--kind", help="transcoder, skip-transcoder or sae.")
    ] = "transcoder",
    activation: Annotated[str, typer.Option("--activation", help="topk.")] = "topk",
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
        Precision, typer.Option("--precision", help="Of the encoder's matrix product.")
    ] = "float32",
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
    field: Annotated[
        str, typer.Option("--field", help="Field or column of the text in --data.")
    ] = "text",
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
) -> None:
    """Train dictionaries on a model's activations.

    One dictionary a layer; all layers are trained in one pass. A run that is stopped or killed
    goes on with --resume and ends with the same weights. Figures at the end are taken on held-out
    text. With --finetune the dictionaries of ordinary training stay in DIR/before.
    """
    import torch

    from pellucid import api
    from pellucid.cli.tables import fidelity_table
    from pellucid.training import train as run_training

    settings: dict[str, Any] = {"kind": kind, "activation": activation, "k": k}
    settings |= {"batch_tokens": batch_tokens, "learning_rate": learning_rate}
    settings |= {"precision": precision, "seed": run.seed}
    settings |= _size(features, expansion)
    by_path = read is not None or write is not None
    check_flags(context)
    data = options.or_specimen(data, model, "--data")
    loaded = api.load_model(model, device=run.device, generic=by_path)
    finetuning: dict[str, Any] = {"objective": finetune, "tokens": finetune_tokens}
    finetuning |= {"store": getattr(torch, store), "context_length": context_length}
    finetuning |= {"field": field, "resume": resume}
    if dictionaries is not None:
        run_finetune(run, loaded, dictionaries, data, out, ordinary=None, **finetuning)
        return
    chosen = None if layers is None else options.parsed("--layers", parse_layers, layers)
    folder = out if finetune is None else out / BEFORE
    with run.training() as on_progress:
        result = run_training(
            loaded,
            data,
            folder,
            tokens=tokens,
            layers=chosen,
            read=read,
            write=write,
            context_length=context_length,
            field=field,
            resume=resume,
            store_dtype=getattr(torch, store),
            on_progress=on_progress,
            **settings,
        )
    if finetune is not None:
        run_finetune(run, loaded, folder, data, out, ordinary=result.to_json(), **finetuning)
        return
    run.report(
        result.to_json(),
        fidelity_table(result.layers),
        f"figures on {result.measured_on}; {result.tokens_per_second:,.0f} tokens/s",
        f"wrote {result.out}",
    )


def _size(features: int | None, expansion: int | None) -> dict[str, int]:
    if features is not None and expansion is not None:
        raise ConfigError(
            f"--features {features} and --expansion {expansion} both set the number of features; "
            "give one of them"
        )
    sizes = {"num_features": features, "expansion": expansion}
    return {name: value for name, value in sizes.items() if value is not None}
