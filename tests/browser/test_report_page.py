"""The trust report in a real browser: it draws all, asks for nothing, complains of nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.report import Evidence, report_payload, to_report
from pellucid.graphs.scores import scores
from support.graphs import causal_record, group_check_record, random_graph

EVIL = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>\u2028'
OpenReport = Callable[[Evidence], Page]


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[OpenReport]:
    """Open a report; afterwards it must have asked for nothing and complained of nothing."""
    path, seen = tmp_path / "report.html", list[str]()
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(120_000)
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))

    def open_it(evidence: Evidence) -> Page:
        path.write_text(to_report(evidence), encoding="utf-8")
        page.goto(path.as_uri())
        return page

    yield open_it
    page.close()
    assert seen == [path.as_uri()]


def checked(seed: int, text: str = "a prompt") -> AttributionGraph:
    graph = random_graph(seed)
    return replace(
        graph,
        prompt=text,
        scores=scores(graph)._asdict(),
        causal=causal_record(graph),
        row_sum_max_error=1e-6,
        metadata={"model": text, "dictionaries": "one", "supernode_checks": [group_check_record()]},
    )


def test_everything_measured_is_drawn(open_report: OpenReport) -> None:
    evidence = Evidence(
        graph=checked(0), paraphrases=(checked(1), checked(2)), compared={"other": checked(3)}
    )
    payload = report_payload(evidence)
    page = open_report(evidence)
    expect(page.locator("h1")).to_have_text("a prompt")
    expect(page.locator("#verdict")).to_have_text("Well supported")
    assert page.locator("main > section").count() == len(payload["sections"]) + 2
    plots = [plot for section in payload["sections"] for plot in section["scatters"]]
    assert page.locator("figure:not(.forest) svg").count() == len(plots)
    dots = page.locator("figure:not(.forest) circle").count()
    assert dots == sum(len(plot["points"]) for plot in plots)
    bars = [bar for s in payload["sections"] for plot in s["forests"] for bar in plot["bars"]]
    known = [bar for bar in bars if bar["value"] is not None]
    assert page.locator("figure.forest circle").count() == len(known)
    checks = [check for section in payload["sections"] for check in section["checks"]]
    summary = page.locator("main > section").first.locator("tbody tr")
    assert summary.count() == len(checks)
    assert page.locator("main > section").first.locator(".mark.good").count() >= 3


def test_it_fits_its_window_and_text_stays_text(open_report: OpenReport) -> None:
    page = open_report(Evidence(graph=checked(0, EVIL), compared={EVIL: checked(3)}))
    expect(page.locator("h1")).to_contain_text("<img src=x")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1200, 420):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
