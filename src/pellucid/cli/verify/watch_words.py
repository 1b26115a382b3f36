"""A watched chain in words, for a terminal or a pipe."""

from typing import Any

from rich.text import Text

from pellucid.verification.watching.watch import WatchedStep

_LIKELY, _POSSIBLE = 0.5, 0.1


def describe_step(step: WatchedStep) -> list[Text]:
    """One line for a step, and for a flagged one what speaks against it."""
    style = _style(step)
    low, high = step.interval or (step.probability, step.probability)
    line = Text(f"{step.segment.number + 1:3d}  ")
    line.append(step.segment.text, style=style)
    line.append(f"  {step.probability:.1%} wrong ({low:.1%} to {high:.1%}), ")
    line.append("by its graph" if step.graphed else "by its free score", style="dim")
    if step.flagged:
        line.append("  flagged", style="bold red")
    said = [line]
    if step.flagged and step.reasons:
        columns = ", ".join(f"{name} {value:+.2f}" for name, value in step.reasons)
        said.append(Text(f"       log-odds: {columns}", style="dim"))
    for each in step.accused:
        said.append(
            Text(
                f"       {each.name}: {each.contribution:+.2f}, {each.influence:.1%} of the "
                "influence",
                style="dim",
            )
        )
    return said


def describe_watching(record: dict[str, Any]) -> list[str]:
    """What was watched in all, and what it cost."""
    flagged = record["flagged"]
    lines = [
        f"{len(record['steps'])} steps, "
        + (f"the first flagged one is step {flagged[0] + 1}" if flagged else "none flagged")
        + f"; {record['graphed_share']:.0%} needed a graph, {record['seconds_per_step']:.3f} s of "
        "processor time a step"
    ]
    band = record["band"]
    if band is None:
        lines.append("No free score decides: every step got a graph if the verifier reads graphs.")
    else:
        lines.append(
            f"The free score {band['column']} decided outside {_limit(band['low'])} to "
            f"{_limit(band['high'])}; there it agrees with the verifier on "
            f"{min(band['below']['agree'], band['above']['agree']):.1%} of the training steps."
        )
    return [*lines, *(f"wrote {path}" for path in record.get("files", {}).values())]


def _limit(value: float | None) -> str:
    return "no limit" if value is None else f"{value:.3g}"


def _style(step: WatchedStep) -> str:
    if step.flagged or step.probability >= _LIKELY:
        return "red"
    return "yellow" if step.probability >= _POSSIBLE else "green"
