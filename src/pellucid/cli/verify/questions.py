"""Options of verbs that have a model write chains."""

from typing import Annotated

import typer

from pellucid.core.errors import ConfigError

Grammar = Annotated[
    str,
    typer.Option(
        "--grammar",
        help="Of the questions: arithmetic, boolean, paper-arithmetic or paper-boolean.",
    ),
]
Operators = Annotated[
    str, typer.Option("--operators", metavar="N-M", help="Operators of the questions.")
]
Temperature = Annotated[float, typer.Option("--temperature", help="Of the chains; 0 for greedy.")]


def operator_range(text: str) -> tuple[int, int]:
    """The least and the most operators of `3-5` or `4`.

    Raises:
        ConfigError: the text is no range.
    """
    least, _, most = text.partition("-")
    if not least.isdigit() or not (most or least).isdigit():
        raise ConfigError(f"--operators is {text!r}; write a range such as 3-5")
    return int(least), int(most or least)
