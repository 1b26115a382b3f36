"""Arguments and options that several verbs take."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from pellucid.cli.values import parse_count
from pellucid.core.errors import ConfigError

SPECIMEN = "specimen"
Value = TypeVar("Value")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, local folder, or specimen.")]
Dictionaries = Annotated[
    str | None,
    typer.Option(
        "--dictionaries",
        metavar="DICTS",
        help="Folder, hub id, or specimen (the default for the specimen).",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="File, folder, datasets name, or specimen (the default for the specimen).",
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")]
Tokens = Annotated[
    int,
    typer.Option("--tokens", parser=parse_count, metavar="N", help="How many tokens, as in 500k."),
]
SpecimenTokens = Annotated[
    int | None,
    typer.Option(
        "--tokens", parser=parse_count, metavar="N", help="The recipe's own number if not given."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")]
Layerwise = Annotated[
    bool,
    typer.Option(
        "--layerwise/--no-layerwise", help="Also replace layers one at a time and cumulatively."
    ),
]


def parsed(option: str, parser: Callable[[str], Value], text: str | None) -> Value:
    """The value of an option that the framework cannot parse itself, such as a list.

    Raises:
        ConfigError: the parser refuses the text.
    """
    try:
        return parser(text or "")
    except ValueError as error:
        raise ConfigError(f"invalid value for {option}: {error}") from None


def or_specimen(value: str | None, model: str, option: str) -> str:
    """The option's value; for the specimen alone it may be left out.

    Raises:
        ConfigError: it was left out for another model.
    """
    if value is not None:
        return value
    if model == SPECIMEN:
        return SPECIMEN
    raise ConfigError(
        f"{option} is missing; only the model {SPECIMEN!r} has one of its own, {model!r} does not"
    )
