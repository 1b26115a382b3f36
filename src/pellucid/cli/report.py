"""What `pellucid trace --report` adds to a graph: further traces, tested groups, one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli.run import Run
from pellucid.core.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from pellucid.dictionaries.dictionary_set import DictionarySet
    from pellucid.graphs.graph import AttributionGraph
    from pellucid.models.model import LanguageModel

NEURONS = "neurons"
MOST_GROUPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a report was asked to hold."""

    path: Path
    paraphrases: tuple[str | list[int], ...]
    compare: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was traced, and how."""

    model: "LanguageModel"
    prompt: str | list[int]
    dictionaries: "DictionarySet | None"
    settings: dict[str, Any]

    def traced(
        self, prompt: str | list[int], dictionaries: "DictionarySet | None", **options: Any
    ) -> "AttributionGraph":
        """A graph of another prompt or other dictionaries, made in the same way."""
        from pellucid.attribution.trace import trace

        settings = self.settings | ({"missing": "neurons"} if dictionaries is None else {})
        return trace(self.model, prompt, dictionaries, **(settings | options))


def plan_report(
    report: Path | None, paraphrases: Path | None, compare: Sequence[str] | None
) -> Plan | None:
    """What the options ask for, checked before anything slow is done; None for no report.

    Raises:
        ConfigError: an option that only a report uses, without one.
        DataError: the file of paraphrases cannot be read or holds none.
    """
    if report is not None:
        from pellucid.attribution.many import read_prompts

        texts = [] if paraphrases is None else [each.prompt for each in read_prompts(paraphrases)]
        return Plan(path=report, paraphrases=tuple(texts), compare=tuple(compare or ()))
    for option, given in (("--paraphrases", paraphrases), ("--compare", compare)):
        if given:
            raise ConfigError(f"{option} is given without --report; add --report FILE")
    return None


def report_on(
    run: Run, plan: Plan, graph: "AttributionGraph", subject: Subject
) -> tuple["AttributionGraph", dict[str, Any]]:
    """Test groups, trace what is to be compared, and write the report.

    Returns:
        The graph with its tested groups, and the report's figures for `--json`.

    Raises:
        PromptError: a paraphrase cannot be traced.
        CheckpointError, DictionaryError: other dictionaries cannot be read or do not fit.
        StorageError: the disk refuses.
    """
    from pellucid.core.files import write_text
    from pellucid.graphs.report import Evidence, to_report

    run.remark("testing groups of features by intervention")
    graph = with_tested_groups(graph, subject, seed=run.seed)
    evidence = Evidence(
        graph=graph,
        paraphrases=tuple(_paraphrases(run, plan, subject)),
        compared=dict(_compared(run, plan, subject)),
        settings={key: str(value) for key, value in subject.settings.items()} | {"seed": run.seed},
        seed=run.seed,
    )
    write_text(plan.path, to_report(evidence))
    checks = graph.metadata["supernode_checks"]
    accepted = sum(check["accepted"] for check in checks)
    counted = {"supernodes": {"tested": len(checks), "accepted": accepted}}
    return graph, {"report": evidence.to_json() | counted}


def with_tested_groups(
    graph: "AttributionGraph", subject: Subject, *, seed: int
) -> "AttributionGraph":
    """The graph with those of the proposed supernodes that act as their parts predict."""
    from pellucid.attribution.checks.groups import accept_supernodes
    from pellucid.attribution.trace import Trace
    from pellucid.graphs.proposals import propose
    from pellucid.graphs.prune import surviving
    from pellucid.graphs.supernodes import Supernode

    keep_nodes, keep_edges = surviving(graph, 0.8, 0.98)
    numbers = keep_nodes.nonzero()[0]
    proposals = [
        Supernode(label=group.label, nodes=tuple(numbers[list(group.nodes)].tolist()))
        for group in propose(graph.subgraph(keep_nodes, keep_edges))[:MOST_GROUPS]
    ]
    missing = subject.settings["missing"]
    linear = Trace(subject.model, subject.prompt, subject.dictionaries, missing=missing).linear
    return accept_supernodes(linear, graph, proposals, seed=seed)


def _paraphrases(run: Run, plan: Plan, subject: Subject) -> list["AttributionGraph"]:
    graphs = []
    for number, text in enumerate(plan.paraphrases, start=1):
        run.remark(f"tracing paraphrase {number} of {len(plan.paraphrases)}")
        try:
            graphs.append(subject.traced(text, subject.dictionaries, causal=False))
        except PromptError as error:
            raise PromptError(f"paraphrase {number}, {text!r}: {error}") from error
    return graphs


def _compared(run: Run, plan: Plan, subject: Subject) -> list[tuple[str, "AttributionGraph"]]:
    from pellucid import api

    graphs = []
    for name in plan.compare:
        run.remark(f"tracing with {name}")
        other = (
            None
            if name == NEURONS
            else api.load_dictionaries(name, device=run.device, model=subject.model)
        )
        graphs.append((name, subject.traced(subject.prompt, other, seed=run.seed)))
    return graphs
