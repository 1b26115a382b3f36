"""The result of the suite, and how it is written: JSON and Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pellucid.introspection.criteria import Criterion, Verdict

ARMS_SAID = {
    "none": "nothing injected",
    "concept": "concept injected",
    "random": "random vector, same norm",
    "shuffled": "concept's vector shuffled",
    "before_query": "concept, removed before the question",
    "before_query_random": "random vector, removed before the question",
    "about_match": "asked about the injected concept",
    "about_mismatch": "asked about another concept",
    "factual_none": "factual-No question, nothing injected",
    "factual_concept": "factual-No question, concept injected",
    "factual_random": "factual-No question, random vector",
    "factual_yes_none": "factual-Yes question, nothing injected",
    "factual_yes_concept": "factual-Yes question, concept injected",
    "factual_yes_random": "factual-Yes question, random vector",
}
CHOICES_SAID = {
    "localisation": "which sentence was injected",
    "comparison": "which of two was stronger",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything measured on one model; all but `criteria` is JSON-able as it is.

    Attributes:
        verdict: "evidence" or "no evidence".
        criteria: accuracy, grounding, internality, metacognitive.
        findings: what else the controls show.
        cell: layer, strength, rho, concepts and repeats that the arms are of.
        arms: name -> rate, low, high, n and more.
        contrasts: paired differences and naming controls.
        strengths: the concept and random arm at every strength.
        sweep: every layer and strength on the concepts that chose.
        experiments: the three further experiments.
        receipt: tokens edited, and their mean relative change.
        provenance: model, wording, judge, settings, versions.
    """

    verdict: Verdict
    criteria: Mapping[str, Criterion]
    findings: Sequence[str]
    cell: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    contrasts: Mapping[str, Any]
    strengths: Sequence[Mapping[str, Any]]
    sweep: Sequence[Mapping[str, Any]]
    experiments: Mapping[str, Mapping[str, Any]]
    receipt: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self)


def summary(report: Report) -> list[str]:
    """The verdict in sentences: what was answered, never more.

    Args:
        report: of a run.
    """
    net = report.contrasts["nets"]["net"]
    lines = [
        f"{report.provenance['model']}: {report.verdict} that answers report injected concepts "
        f"(net rate {_interval(net, 'value')})",
        *(f"{name}: {each.state} ({each.because})" for name, each in report.criteria.items()),
        *report.findings,
    ]
    if report.provenance["settings"]["quick"]:
        lines.append("a quick run: too few trials to report")
    return lines


def markdown(report: Report) -> str:
    """The report as a Markdown page; text of models and files is escaped.

    Args:
        report: of a run.
    """
    cell, made = report.cell, report.provenance
    parts = [
        f"# Introspection: {escaped(str(made['model']))}\n",
        "\n".join(f"- {escaped(line)}" for line in summary(report)) + "\n",
        f"Vectors were added after layer {cell['layer']} at strength {cell['strength']:g} "
        f"(rho {cell['rho']:.2f}), chosen on other concepts; {cell['concepts']} concepts, "
        f"{cell['repeats']} trials each. {report.receipt['tokens_edited']:,} tokens were edited, "
        f"by {report.receipt['mean_relative_norm']:.2f} of their norm on average.\n",
        _table("arm, answered yes, and named it, refused, unclear, n", arm_rows(report)),
        _table("forced choice, right, chance, n", choice_rows(report)),
        _table("contrast, difference", contrast_rows(report)),
        _table("strength, rho, named it, answered yes, random: yes", strength_rows(report)),
        _table("experiment, arm, rate or difference", experiment_rows(report)),
        f"Wording {escaped(str(made['wording']))}, judge {escaped(str(made['judge']['name']))}, "
        f"seed {made['settings']['seed']}, fingerprint {made['fingerprint']}.\n",
    ]
    return "\n".join(parts)


def arm_rows(report: Report) -> list[list[str]]:
    """Cells of the table of arms."""
    rows = []
    for name, said in ARMS_SAID.items():
        arm = report.arms[name]
        naming = not name.startswith(("about", "factual"))
        rows.append(
            [
                said,
                _interval(arm),
                _interval(arm["identified"]) if naming else "",
                f"{arm['refused']:.0%}",
                f"{arm['unclear']:.0%}",
                str(arm["n"]),
            ]
        )
    return rows


def choice_rows(report: Report) -> list[list[str]]:
    """Cells of the table of forced choices."""
    rows = []
    for name, said in CHOICES_SAID.items():
        arm = report.arms[name]
        right = _interval(arm) if arm["measurable"] else "not measurable"
        rows.append([said, right, f"{arm['chance']:.2f}", str(arm["n"])])
    return rows


def contrast_rows(report: Report) -> list[list[str]]:
    """Cells of the table of paired differences."""
    nets = report.contrasts["nets"]
    return [[name.replace("_", " "), _interval(each, "value")] for name, each in nets.items()]


def strength_rows(report: Report) -> list[list[str]]:
    """Cells of the table of strengths."""
    return [
        [
            f"{row['strength']:g}",
            f"{row['rho']:.2f}",
            *(_interval(row[name]) for name in ("identified", "affirmed", "affirmed_random")),
        ]
        for row in report.strengths
    ]


def experiment_rows(report: Report) -> list[list[str]]:
    """Cells of the table of the further experiments."""
    rows = []
    for name, each in report.experiments.items():
        if not each["measurable"]:
            why = f"not measurable (does the text task in {each['control']:.0%})"
            rows.append([name, "", why])
            continue
        for arm, rate in each["rates"].items():
            rows.append([name, arm.replace("_", " "), _interval(rate)])
        for arm, net in each["nets"].items():
            rows.append([name, arm.replace("_", " "), _interval(net, "value")])
    return rows


def escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is.

    Args:
        text: anything.
    """
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|":
        plain = plain.replace(sign, f"\\{sign}")
    return " ".join(plain.split())


def _table(headings: str, rows: Sequence[Sequence[str]]) -> str:
    names = headings.split(", ")
    cells = [[escaped(cell) for cell in row] for row in rows]
    lines = [names, ["---"] * len(names), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _interval(record: Mapping[str, Any], key: str = "rate") -> str:
    return f"{record[key]:.2f} ({record['low']:.2f} to {record['high']:.2f})"
