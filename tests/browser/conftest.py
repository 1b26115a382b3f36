"""A real headless browser, and pages that note every request and every complaint."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pellucid.graphs.graph import AttributionGraph
from support.pages import write_page

CHROMIUM = "/usr/bin/chromium"
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), f"the browser tests need {CHROMIUM}: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Callable[[AttributionGraph], Page]]:
    """Open a graph's page; afterwards it must have asked for nothing and complained of nothing."""
    requests: list[str] = []
    complaints: list[str] = []
    pages: list[Page] = []

    def open_graph(graph: AttributionGraph) -> Page:
        page = browser.new_page(viewport={"width": 1300, "height": 850})
        pages.append(page)
        page.set_default_timeout(120_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(write_page(graph, tmp_path))
        return page

    yield open_graph
    for page in pages:
        page.close()
    assert requests == [(tmp_path / "page.html").as_uri()] * len(pages)
    assert complaints == []
