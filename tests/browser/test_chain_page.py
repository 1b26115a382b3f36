"""The page of a chain in a real browser: it shows all, asks for nothing, complains of nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from pellucid.verification.page import chain_page
from support.watched import EVIL, repair_record, watched

OpenPage = Callable[[str], Page]


@pytest.fixture
def open_chain(browser: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Open a page; afterwards it must have asked for nothing and complained of nothing."""
    path, seen = tmp_path / "chain.html", list[str]()
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(120_000)
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))

    def open_it(source: str) -> Page:
        path.write_text(source, encoding="utf-8")
        page.goto(path.as_uri())
        return page

    yield open_it
    page.close()
    assert [url for url in seen if url != "about:srcdoc"] == [path.as_uri()]


def test_steps_accusations_repairs_and_graphs_are_shown(open_chain: OpenPage) -> None:
    steps = [watched(0), watched(1, text=EVIL, flagged=True)]
    page = open_chain(chain_page(EVIL, steps, repairs=[repair_record(1, EVIL)]))
    expect(page.locator("#steps button")).to_have_count(2)
    expect(page.locator("#verdict")).to_have_text("first flagged: step 2")
    expect(page.locator("#steps button").nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#step h2")).to_have_text(EVIL)
    expect(page.locator("#accused tbody tr")).to_have_count(1)
    expect(page.locator("#accused mark").first).to_be_visible()
    expect(page.locator("#repairs td").first).to_have_text(EVIL)
    page.get_by_role("button", name="draw answer").click()
    drawn = page.frame_locator("iframe").locator("#nodes > *")
    expect(drawn.first).to_be_attached()
    assert drawn.count() > 5
    page.locator("#steps button").first.click()
    expect(page.locator("#step h2")).to_have_text("( 7 * 2 )")
    expect(page.locator("iframe")).to_have_count(0)
    assert page.evaluate("window.hacked") is None
    assert all(frame.evaluate("window.hacked") is None for frame in page.frames)
