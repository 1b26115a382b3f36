"""`pellucid convert`: dictionaries in the format of another tool."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pellucid.cli import options
from pellucid.cli.run import Run
from pellucid.core.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from pellucid.dictionaries import DictionarySet
    from pellucid.models.model import LanguageModel

Source = Annotated[
    str, typer.Argument(metavar="SRC", help="Folder, hub id, or specimen; in any known format.")
]
Destination = Annotated[
    Path, typer.Argument(metavar="DST", help="Folder to write; must not exist.")
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="pellucid, circuit-tracer, circuit-tracer-clt, sparsify, saelens, llamascopium, "
        "gemma-scope or gemma-scope-2.",
    ),
]
Lossy = Annotated[
    bool,
    typer.Option("--lossy", help="Write the nearest the format has where it cannot hold them."),
]
OfModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Model they belong to, where names or values depend on it; specimen for the specimen.",
    ),
]


def convert(
    run: Run,
    source: Source,
    destination: Destination,
    to: To,
    lossy: Lossy = False,
    model: OfModel = None,
    data: options.Data = None,
) -> None:
    """Write dictionaries in the format of another tool.

    What the format cannot hold is refused with the reason. What was written is read back, and its
    outputs on random inputs are compared with those of the source. A text (--data) is read only to
    set thresholds where --lossy puts JumpReLU in the place of TopK.
    """
    from pellucid import api
    from pellucid.dictionaries import FORMATS
    from pellucid.dictionaries import convert as write

    started = time.perf_counter()
    _ = FORMATS[to]
    if data is not None and not lossy:
        raise ConfigError("--data is for what --lossy loses; leave it out, or give --lossy")
    if source == options.SPECIMEN and model is None:
        model = options.SPECIMEN
    if model == options.SPECIMEN and lossy and data is None:
        data = options.SPECIMEN
    loaded = None if model is None else api.load_model(model, device=run.device)
    dictionaries = api.load_dictionaries(source, device=run.device, model=loaded)
    done = write(
        dictionaries,
        destination,
        to,
        model=loaded,
        allow_loss=lossy,
        inputs=_inputs(dictionaries, loaded, data, run.seed),
        seed=run.seed,
    )
    run.report(
        done.to_json() | {"seconds": time.perf_counter() - started},
        f"wrote {done.out}: {len(done.layers)} layers as {done.format}",
        f"read back, outputs differ by at most {done.max_abs_diff:.1e}",
        *(f"lost: {what}" for what in done.lost),
    )


def _inputs(
    dictionaries: "DictionarySet", model: "LanguageModel | None", data: str | None, seed: int
) -> "dict[int, Float[Tensor, 'N d_in']]":
    """What each dictionary reads on a text."""
    if data is None:
        return {}
    if model is None:
        raise ConfigError("--data needs the model that reads it; give --model")
    from pellucid.harvest.self_check import read_inputs

    return read_inputs(dictionaries, model, data, seed=seed)
