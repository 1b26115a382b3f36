"""The report as one page that needs no network."""

from dataclasses import asdict
from importlib import resources
from typing import Any

from pellucid.core.manifest import software_versions
from pellucid.graphs.container import json_value
from pellucid.graphs.page.embed import assemble
from pellucid.graphs.page.html import asset as page_asset
from pellucid.graphs.report.causal_sections import (
    answer_section,
    causal_section,
    depth_section,
    supernode_section,
)
from pellucid.graphs.report.evidence import Evidence
from pellucid.graphs.report.sections import (
    coverage_section,
    dictionary_section,
    limits_section,
    provenance,
    stability_section,
    sums_section,
)
from pellucid.graphs.tables import LOGIT
from pellucid.graphs.trust import verdict


def report_payload(evidence: Evidence) -> dict[str, Any]:
    """The page's data: verdict, provenance and sections, all JSON-able."""
    graph = evidence.graph
    possible = (
        sums_section(graph),
        causal_section(graph),
        depth_section(graph),
        answer_section(graph),
        supernode_section(graph),
        stability_section(evidence),
        coverage_section(graph),
        dictionary_section(evidence),
        limits_section(evidence),
    )
    sections = [section.to_json() for section in possible if section is not None]
    ends = graph.nodes.is_kind(LOGIT).nonzero()[0]
    versions = graph.metadata.get("versions") or software_versions()
    told = Evidence(graph=graph, settings={"versions": versions} | evidence.settings)
    return json_value(
        {
            "prompt": graph.prompt,
            "answers": [
                {"text": graph.nodes.label[n], "probability": float(graph.nodes.probability[n])}
                for n in ends
            ],
            "verdict": asdict(verdict(graph)),
            "provenance": asdict(provenance(told)),
            "sections": sections,
        }
    )


def to_report(evidence: Evidence) -> str:
    """The report as HTML: every figure beside its control, and what the graph does not show."""
    return assemble(
        _asset("report.html"),
        style=page_asset("page.css") + _asset("report.css"),
        script=_asset("report.js"),
        data=report_payload(evidence),
    )


def _asset(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
