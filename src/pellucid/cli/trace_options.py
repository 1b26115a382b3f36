"""The options of `pellucid trace`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pellucid.cli.values import parse_count

NEURONS = "neurons"

Out = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="File to write; with --prompts a folder.")
]
Prompt = Annotated[
    str | None, typer.Argument(metavar="PROMPT", help="Text whose next token is explained.")
]
Format = Annotated[
    Literal["pellucid", "neuronpedia"], typer.Option("--format", help="What to write to --out.")
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write an offline page.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="WHAT",
        help="Explain this: logit:WORD, difference:WORD,WORD or feature:LAYER.NUMBER@POSITION; "
        "repeatable.",
    ),
]
MaxFeatures = Annotated[
    int,
    typer.Option(
        "--max-features", parser=parse_count, metavar="N", help="The most features to keep."
    ),
]
Epsilon = Annotated[
    float, typer.Option("--epsilon", help="Stop when this share of influence is unexplored.")
]
MissingLayers = Annotated[
    Literal["refuse", "neurons", "gates", "error"],
    typer.Option(
        "--missing", help="What stands for an MLP without dictionary; gates pass it through."
    ),
]
Precision = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(
        "--precision", help="Of the sweep; rows that matter are then computed in float32."
    ),
]
MaxMemory = Annotated[
    str | None, typer.Option("--max-memory", metavar="SIZE", help="Keep to this, as in 8GiB.")
]
Lazy = Annotated[
    bool, typer.Option("--lazy", help="Leave dictionaries in their files, read where needed.")
]
PromptIds = Annotated[
    str | None, typer.Option("--prompt-ids", metavar="1,2,3", help="Token ids for PROMPT.")
]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="Trace all of these, one a line, or .jsonl."),
]
Causal = Annotated[
    bool, typer.Option("--causal/--no-causal", help="Check the top features by intervention.")
]
Attention = Annotated[
    bool,
    typer.Option("--attention", help="Say which heads carry the edges, and why they look there."),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Also write how far to trust it, as a page."),
]
Paraphrases = Annotated[
    Path | None,
    typer.Option("--paraphrases", metavar="FILE", help="Other wordings for it, one a line."),
]
Compare = Annotated[
    list[str] | None,
    typer.Option("--compare", metavar="DICTS", help="Others for it, or neurons; repeatable."),
]
