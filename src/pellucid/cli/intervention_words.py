"""Tables that show what interventions did."""

from typing import Any

from rich.table import Table


def describe_receipt(receipt: dict[str, Any]) -> Table:
    """A row an intervention: where, what, how many tokens, how large.

    Args:
        receipt: `Receipt.to_json()`.
    """
    table = Table(title="What was edited", title_justify="left")
    for name in ("place", "operation", "prompt tokens", "generated tokens", "gated off", "size"):
        table.add_column(name, justify="left" if name in ("place", "operation") else "right")
    for row in receipt["sites"]:
        edited = row["tokens_edited"]
        table.add_row(
            row["site"],
            row["op"],
            str(edited["prefill"]),
            str(edited["decode"]),
            str(row["gated_off"]),
            f"{row['mean_relative_norm']:.3f}",
        )
    return table


def describe_effect(effect: dict[str, Any]) -> Table:
    """A row a prompt: KL beside that of random edits, and the most probable tokens.

    Args:
        effect: the record of `pellucid intervene`.
    """
    title = "The next token (KL in nats; random edits of the same size: mean and 95%)"
    table = Table(title=title, title_justify="left")
    for name in ("prompt", "KL", "random edits", "before", "after"):
        table.add_column(name, justify="right" if name in ("KL", "random edits") else "left")
    for row in effect["prompts"]:
        control = row["control"]
        table.add_row(
            row["prompt"],
            f"{row['kl']:.3f}",
            f"{control['kl']:.3f} [{control['low']:.3f}, {control['high']:.3f}]",
            _tokens(row["before"]),
            _tokens(row["after"]),
        )
    return table


def _tokens(ranked: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['token']} {each['probability']:.2f}" for each in ranked[:3])
