"""What was checked about a graph, as one page that a sceptical reader can judge by itself."""

from pellucid.graphs.report.evidence import Evidence
from pellucid.graphs.report.page import report_payload, to_report

__all__ = ["Evidence", "report_payload", "to_report"]
