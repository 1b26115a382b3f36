"""Tables that show causal tracing to a reader."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

_MOST_ROWS = 15


def cells_table(title: str, cells: Sequence[dict[str, Any]]) -> Table:
    """The strongest patches beside those controls that there are."""
    controls = {
        "noise": "noise",
        "same_answer": "same answer",
        "other_positions": "other tokens",
    }
    known = [key for key in controls if any(cell[key] is not None for cell in cells)]
    bounded = any(cell["low"] is not None for cell in cells)
    interval = ["low", "high"] if bounded else []
    table = _table(title, "place", "token", "effect", *interval, *(controls[key] for key in known))
    for cell in cells:
        where = f"{cell['token']} ({cell['position']})" if cell["position"] >= 0 else cell["token"]
        shown = (_number(cell[key]) for key in ("effect", *interval, *known))
        table.add_row(cell["site"], where, *shown)
    return table


def verified_table(title: str, verified: dict[str, Any]) -> list[RenderableType]:
    """Candidates of a screen, patched for real, and what the rest looks like."""
    key = "estimate" if any("estimate" in each for each in verified["top"]) else "score"
    table = _table(title, "place", "token", "estimate", "exact")
    for cell in verified["top"][:_MOST_ROWS]:
        edge = "sender" in cell
        place = f"{cell['sender']} > {cell['receiver']}" if edge else cell["site"]
        token = "all" if edge else f"{cell['token']} ({cell['position']})"
        table.add_row(place, token, _number(cell[key]), _number(cell["exact"]))
    agreement, missed = verified["rank_agreement"], verified["missed_share"]
    return [
        table,
        f"rank agreement of estimate and exact effect: {_number(agreement) or 'not defined'}",
        "random sample of the rest: "
        + (
            "none left"
            if missed is None
            else f"{missed:.0%} beat the median candidate; the largest effect is "
            f"{verified['largest_missed']:.3f}"
        ),
    ]


def components_table(record: dict[str, Any]) -> Table:
    """The largest direct contributions beside what the component writes to random tokens."""
    what = record["answer"] + (f" - {record['other']}" if record["other"] else "")
    title = f"direct contributions to logit({what}) = {record['total']:.3f}"
    table = _table(title, "component", "contribution", "random tokens (rms)")
    order = sorted(record["components"], key=lambda each: -abs(each["contribution"]))
    for each in order[:_MOST_ROWS]:
        numbers = (_number(each[key]) for key in ("contribution", "random_pairs"))
        table.add_row(each["name"], *numbers)
    return table


def lens_table(result: Any) -> Table:
    """What the last token's residual predicts, place by place."""
    names = [f"p({name})" for name in result.followed]
    table = _table("lens at the last token", "place", "top token", *names, "KL", "KL shuffled")
    for row, place in enumerate(result.places):
        chances = (f"{value:.3f}" for value in result.probability[:, row, -1])
        kl = (f"{values[row]:.2f}" for values in (result.kl, result.kl_shuffled))
        table.add_row(place, result.top[row][-1], *chances, *kl)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
