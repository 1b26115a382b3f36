"""Does the introspection suite tell a model that reports from one that only says yes?

The plain specimen and its two organisms, through the whole suite with every control arm; and the
reporter once more on the concepts that it was never taught. From the repository's root, with
pellucid importable:

    python -m benchmarks.introspection --out benchmarks/results/introspection.json

`docs/introspection.md` says how to read the tables; `python -m benchmarks.introspection --docs`
writes them there again.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import pellucid
from benchmarks.measure import hardware, measure, versions
from benchmarks.tables import markdown
from pellucid.cli.run import finite
from pellucid.introspection.judges import ExactJudge
from pellucid.introspection.organisms.recipe import RECIPES, taught_concepts
from pellucid.introspection.report import ARMS_SAID, CHOICES_SAID
from pellucid.introspection.suite import Settings, introspect
from pellucid.introspection.wording import Wording, read_wording

RESULTS = Path(__file__).parent / "results" / "introspection.json"
PAGE = Path(__file__).parents[1] / "docs" / "introspection.md"
BLOCK = re.compile(r"(<!-- introspection (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
PACKAGES = ("pellucid", "torch", "transformers", "numpy")
UNTAUGHT = "reporter, concepts never taught"
CONTRASTS = {
    "net": "net rate: named, concept less random",
    "accuracy_none": "named, less any yes with nothing injected",
    "accuracy_random": "named, less any yes to random vectors",
    "accuracy_shuffled": "named, less any yes to shuffled vectors",
    "detection_none": "yes, concept less nothing",
    "detection_random": "yes, concept less random",
    "about": "yes to X, X injected less another",
    "before_query": "named, removed before the question, less yes to random",
    "yes_to_random": "yes, random less nothing",
    "yes_to_facts_concept": "yes to facts of both kinds, concept less nothing",
    "yes_to_facts_random": "yes to facts of both kinds, random less nothing",
    "logits_beside_random": "logit shift less that of factual-No, beside random",
}


def untaught(wording: Wording) -> list[str]:
    """The concepts that the reporter never met in training."""
    taught = set(taught_concepts(RECIPES["reporter"], len(wording.concepts)))
    return [word for number, word in enumerate(wording.concepts) if number not in taught]


def run_all(settings: Settings) -> dict[str, Any]:
    """Every model's report, by name."""
    wording = read_wording("specimen")
    runs: list[tuple[str, str, list[str] | None]] = [
        ("specimen", "specimen", None),
        ("reporter", "specimen:reporter", None),
        (UNTAUGHT, "specimen:reporter", untaught(wording)),
        ("yes-bias", "specimen:yes-bias", None),
    ]
    done = {}
    for name, source, concepts in runs:
        model = pellucid.load_model(source)
        report, cost = measure(
            lambda model=model, concepts=concepts: introspect(
                model, wording, ExactJudge(wording), settings=settings, concepts=concepts
            )
        )
        done[name] = finite(report.to_json()) | {"cpu_s": cost.cpu_s}
        print(f"{name}: {report.verdict}, {cost.cpu_s:.0f} s", file=sys.stderr, flush=True)
    return done


# Tables

Reports = Mapping[str, Mapping[str, Any]]


def shown(record: Mapping[str, Any], key: str = "rate") -> str:
    """A figure with its interval."""
    return f"{record[key]:.2f} ({record['low']:.2f} to {record['high']:.2f})"


def _rows(
    reports: Reports, names: Mapping[str, str], cell: Callable[[Mapping[str, Any], str], str]
) -> Iterable[list[str]]:
    for name, said in names.items():
        yield [said, *(cell(report, name) for report in reports.values())]


def verdicts(reports: Reports) -> str:
    """Verdict and criteria."""
    rows = [["verdict", *(f"**{report['verdict']}**" for report in reports.values())]]
    for name in ("accuracy", "grounding", "internality", "metacognitive"):
        rows.append([name, *(report["criteria"][name]["state"] for report in reports.values())])
    cells = [report["cell"] for report in reports.values()]
    rows.append(["layer, strength", *(f"{c['layer']}, {c['strength']:g}" for c in cells)])
    rows.append(["rho", *(f"{c['rho']:.2f}" for c in cells)])
    arms = [report["arms"]["concept"] for report in reports.values()]
    rows.append(["trials an arm", *(str(arm["n"]) for arm in arms)])
    return table("what", reports, rows)


def arms(reports: Reports) -> str:
    """Shares of yes by arm, then of yes with the right name, then forced choices."""
    rows = list(_rows(reports, ARMS_SAID, lambda report, name: shown(report["arms"][name])))
    named = ("none", "concept", "random", "shuffled", "before_query", "before_query_random")
    rows += _rows(
        reports,
        {name: f"named it: {ARMS_SAID[name]}" for name in named},
        lambda report, name: shown(report["arms"][name]["identified"]),
    )
    rows += _rows(reports, CHOICES_SAID, _choice)
    return table("arm", reports, rows)


def _choice(report: Mapping[str, Any], name: str) -> str:
    arm = report["arms"][name]
    return shown(arm) if arm["measurable"] else "not measurable"


def contrasts(reports: Reports) -> str:
    """Paired differences."""
    rows = _rows(
        reports, CONTRASTS, lambda report, name: shown(report["contrasts"]["nets"][name], "value")
    )
    return table("paired difference", reports, rows)


def experiments(reports: Reports) -> str:
    """The other three experiments."""
    wanted = {
        "thought against text": "read_concept_less_random",
        "prefill detection": "matching_less_other",
        "intentional control": "think_less_avoid",
    }

    def cell(report: Mapping[str, Any], name: str) -> str:
        each = report["experiments"][name]
        if not each["measurable"]:
            return f"not measurable ({each['control']:.0%})"
        return shown(each["nets"][wanted[name]], "value")

    names = {name: f"{name}: {net.replace('_', ' ')}" for name, net in wanted.items()}
    return table("experiment", reports, _rows(reports, names, cell))


def table(first: str, reports: Reports, rows: Iterable[list[str]]) -> str:
    """Rows under the models' names."""
    names = [name.replace(", ", " on ") for name in reports]
    return markdown(", ".join([first, *names]), rows)


TABLES = {
    "verdicts": verdicts,
    "arms": arms,
    "contrasts": contrasts,
    "experiments": experiments,
}


def refreshed(page: str) -> str:
    """The page with every table as the results say."""
    reports = json.loads(RESULTS.read_text(encoding="utf-8"))["reports"]
    return BLOCK.sub(lambda match: match[1] + TABLES[match[2]](reports) + match[3], page)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--docs", action="store_true", help="write the page's tables, run nothing")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    if options.docs:
        PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    reports = run_all(Settings(seed=options.seed))
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions(PACKAGES),
        "threads": options.threads,
        "seed": options.seed,
        "reports": reports,
    }
    options.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    for build in TABLES.values():
        print(build(reports))


if __name__ == "__main__":
    main()
