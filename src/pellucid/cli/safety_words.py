"""The safety workflow's figures, as tables for a reader."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from pellucid.safety.guard import Guarded

Record = dict[str, Any]


def describe_discovery(record: Record) -> list[RenderableType]:
    """How well attacks are told apart, by what, and the tokens they hang on."""
    table = Table("site", "AUROC (held out)", "recall at .1% FPR", "shuffled", "random")
    for row in record["raw"]["sites"]:
        recall = row["recall_at_fpr"]["0.001"]["value"]
        mark = " *" if row["site"] == record["raw"]["site"] else ""
        figures = (f"{recall:.3f}", f"{row['shuffled']:.3f}", f"{row['random']:.3f}")
        table.add_row(row["site"] + mark, _figure(row), *figures)
    table.add_row("bag of words", _figure(record["words"]), "", "", "")
    shown: list[RenderableType] = [table]
    if "features" in record:
        count = len(record["features"]["probe"]["features"])
        table.add_row(f"{count} features", _figure(record["features"]), "", "", "")
        search = record["candidates"]
        chosen = Table("candidate", "predicted", "measured alone", "fires on")
        for each in search["features"]:
            tokens = ", ".join(f["token"] for f in record["fires_on"][each["site"]])
            chosen.add_row(
                each["site"], f"{each['predicted']:+.2f}", f"{each['measured']:+.2f}", tokens
            )
        shown.append(chosen)
        if search["restored"]:
            shown.append(
                f"{len(search['features'])} features clamped together: "
                f"{search['restored'][-1]:.1%} of attacks lean to refusing (as many chosen by "
                f"activation: {search['by_activation']['restored']:.1%})"
            )
    suspects = Table("without the token", "attacks that lean to refusing")
    for each in record["suspects"]:
        suspects.add_row(each["token"], _share(each | {"value": each["restored"]}))
    return [*shown, suspects]


def describe_validation(record: Record) -> list[RenderableType]:
    """Every arm beside its control."""
    table = Table("edit, no gate", "attacks refused", "log odds", "benign refused")
    for arm in record["arms"]:
        change = f"{arm['lean_change']:+.2f}"
        table.add_row(arm["arm"], _share(arm["refused"]), change, _share(arm["benign_refused"]))
    lines = [
        f"{name}: {'controls the behaviour' if held else 'no better than its control'}"
        for name, held in record["verdict"].items()
    ]
    return [table, *lines]


def describe_calibration(record: Record) -> list[RenderableType]:
    """The thresholds, and every treatment behind the gate."""
    rates = Table("FPR asked", "threshold", "FPR", "recall")
    for rate, each in record["recall_at_fpr"].items():
        rates.add_row(rate, f"{each['threshold']:.3f}", _share(each["fpr"]), _share(each["recall"]))
    table = Table("treatment behind the gate", "attacks that succeed", "own words", "KL where open")
    for row in record["treatments"]:
        if "refused_because" in row:
            table.add_row(row["treatment"], "cannot be used", "", "")
            continue
        figures = (f"{row['natural']:.0%}", f"{row['kl_where_open']:.4f}")
        table.add_row(row["treatment"], _share(row["attack_success"]["after"]), *figures)
    return [rates, table, f"chosen: {record['chosen']}, at {record['fpr']:g} false positives"]


def describe_audit(record: Record) -> list[RenderableType]:
    """The guard beside the same edits without the gate."""
    table = Table("held-out requests", "before", "guard", "no gate")
    other = record["unconditional"]
    for name, key in (
        (f"attack success, {record['attack_success']['among']}", "attack_success"),
        ("harmful requests answered", "harmful_answered"),
        ("benign requests refused", "over_refusal"),
        ("of those with a suspected token", "over_refusal_with_suspected_token"),
    ):
        if record[key] is not None:
            pairs = (record[key]["before"], record[key]["after"], other[key]["after"])
            table.add_row(name, *(_share(each) for each in pairs))
    for name, key in (
        ("benign KL, nats a token", "benign_kl"),
        ("the same with every token a decision", "benign_kl_every_token"),
    ):
        table.add_row(name, "", _figure(record[key]), _figure(other[key]))
    perplexity = [each["benign_kl"]["perplexity"] for each in (record, other)]
    numbers = (perplexity[0]["before"], perplexity[0]["after"], perplexity[1]["after"])
    table.add_row("perplexity of benign text", *(f"{number:.4f}" for number in numbers))
    overlap = ", ".join(
        f"{name} {value:+.2f}"
        for name, value in record["overlap"].items()
        if isinstance(value, float)
    )
    return [table, f"cosines with the refusal direction: {overlap}"]


def describe_guarded(prompts: Sequence[str], made: Guarded) -> list[RenderableType]:
    """Every prompt with what was done."""
    table = Table("prompt", "reading", "action", "answer")
    for row, (prompt, text) in enumerate(zip(prompts, made.texts, strict=True)):
        table.add_row(prompt, f"{made.readings[row]:.2f}", made.actions[row], text)
    return [table]


def _share(figure: Record) -> str:
    return f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"


def _figure(figure: Record) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.4f}"
    return f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"
