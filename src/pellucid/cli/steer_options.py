"""The options of `pellucid steer`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Method = Literal["caa", "mean", "repe", "actadd", "feature", "output-score", "sae-ts"]

Positive = Annotated[
    Path | None,
    typer.Option("--positive", metavar="FILE", help="Texts that show the concept, one a line."),
]
Negative = Annotated[
    Path | None,
    typer.Option("--negative", metavar="FILE", help="Their counterparts, line by line."),
]
Vector = Annotated[
    Path | None,
    typer.Option("--vector", metavar="DIR", help="A vector that --out has written before."),
]
Feature = Annotated[
    str | None,
    typer.Option("--feature", metavar="LAYER:NUMBER", help="A feature of the dictionaries."),
]
Prompts = Annotated[
    str,
    typer.Option("--prompts", metavar="FILE|TEXT", help="Prompts to steer: a file, or one text."),
]
Methods = Annotated[
    Method | None,
    typer.Option(
        "--method",
        help="caa, mean, repe and actadd need --positive and --negative; feature and sae-ts "
        "--feature; output-score finds the feature that raises --target most.",
    ),
]
SiteName = Annotated[
    str | None,
    typer.Option(
        "--site", metavar="SITE", help="Where to steer; resid_post at two fifths of the depth."
    ),
]
Strengths = Annotated[
    str,
    typer.Option(
        "--strengths",
        metavar="LIST",
        help="Relative strengths rho: the vector's length over the median length of what it is "
        "added to.",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="TEXT",
        help="Continuation that steering should make likelier; repeatable.",
    ),
]
Tokens = Annotated[
    Literal["last", "on", "all"],
    typer.Option(
        "--tokens",
        help="Steer the prompt's last token, that and all generated ones, or every token.",
    ),
]
When = Annotated[
    Path | None,
    typer.Option("--when", metavar="FILE", help="Steer only prompts like these (with --unless)."),
]
Unless = Annotated[
    Path | None, typer.Option("--unless", metavar="FILE", help="Leave prompts like these alone.")
]
Refusal = Annotated[
    Path | None,
    typer.Option(
        "--refusal", metavar="DIR", help="The refusal direction, to report the cosine with it."
    ),
]
OutFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write the vector and the table here."),
]
