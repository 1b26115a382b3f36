"""The graph page in a real browser: what a reader sees and does."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.prune import cumulative_influence, surviving
from pellucid.graphs.scores import influence, scores
from pellucid.graphs.tables import ERROR, FEATURE, LOGIT, TOKEN
from support.graphs import causal_record, random_graph
from support.pages import write_page

OpenPage = Callable[..., Page]
VISIBLE = "#nodes .node:not(.gone)"


@pytest.fixture
def graph() -> AttributionGraph:
    graph = random_graph(7, n_layers=4, n_tokens=5)
    labels = list(graph.nodes.label)
    labels[0] = "names of capitals"
    return replace(
        graph,
        nodes=replace(graph.nodes, label=labels),
        scores=scores(graph)._asdict(),
        causal=causal_record(graph),
    )


def embedded(graph: AttributionGraph) -> np.ndarray:
    """The graph's node numbers in the order of the page's own."""
    return np.flatnonzero(surviving(graph, 1.0, 0.98)[0])


def set_slider(page: Page, value: int) -> None:
    """Move the slider and wait for the page to have drawn: it draws once a frame."""
    page.locator("#threshold").fill(str(value))
    page.evaluate("new Promise((done) => requestAnimationFrame(done))")


def strongest_inputs(graph: AttributionGraph, node: int) -> list[tuple[int, float]]:
    """Embedded inputs of a node, strongest first."""
    _, keep = surviving(graph, 1.0, 0.98)
    mine = keep & (graph.edges.target == node)
    order = np.argsort(-np.abs(graph.edges.weight[mine]), kind="stable")
    pairs = zip(graph.edges.source[mine][order], graph.edges.weight[mine][order], strict=True)
    return [(int(source), float(weight)) for source, weight in pairs]


def written(weight: float) -> str:
    return ("+" if weight > 0 else "−") + f"{abs(weight):.2f}"  # noqa: RUF001


def test_everything_is_on_the_page(open_page: OpenPage, graph: AttributionGraph) -> None:
    page = open_page(graph)
    expect(page.locator("h1")).to_have_text("a prompt")
    assert page.title() == "a prompt · attribution graph"
    assert page.locator(f"{VISIBLE}.token").count() == 5
    assert page.locator(f"{VISIBLE}.logit").count() == 3
    expect(page.locator("#verdict")).to_contain_text("Well supported")
    expect(page.locator("#statements")).to_contain_text("0.93 [0.81, 0.98]")
    expect(page.locator("#statements")).to_contain_text("Random features, for comparison")
    assert page.locator("#scatter svg").count() == 2
    assert page.locator("#scatter .dot").count() == len(graph.causal["rows"])  # type: ignore[index]
    expect(page.locator("#left-out")).to_contain_text(f"{len(graph.edges)} edges")


def test_pointing_at_a_node_lists_its_inputs_with_signed_weights(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    kept = embedded(graph)
    logit = int(np.flatnonzero(graph.nodes.is_kind(LOGIT))[0])
    page.locator(f'#nodes [data-id="{np.searchsorted(kept, logit)}"]').hover()
    expect(page.locator("#panel h2")).to_contain_text(graph.nodes.label[logit])
    expect(page.locator("#panel h3").first).to_contain_text("What feeds it")
    expected = strongest_inputs(graph, logit)[:12]
    weights = page.locator("#panel .rows").first.locator(".weight").all_inner_texts()
    assert weights == [written(weight) for _, weight in expected]
    listed = page.locator("#panel .rows").first.locator("button").all()
    assert [int(kept[int(row.get_attribute("data-node") or -1)]) for row in listed] == [
        source for source, _ in expected
    ]
    signs = {"minus" if weight < 0 else "plus" for _, weight in expected}
    for sign in signs:
        assert page.locator(f"#near .{sign}").count() > 0
    assert page.locator("#edges path:not(.faint)").count() > 0
    page.mouse.move(5, 5)
    expect(page.locator("#panel h2")).to_have_text("Start here")


def test_the_parts_of_a_row_add_up_on_the_page(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    page.locator("#predictions button").first.click()
    parts = page.locator("#panel .sum dd").all_inner_texts()
    numbers = [float(text.replace("−", "-")) for text in parts]  # noqa: RUF001
    assert sum(numbers[:3]) == pytest.approx(numbers[3], abs=0.021)
    logit = int(np.flatnonzero(graph.nodes.is_kind(LOGIT))[0])
    assert numbers[3] == pytest.approx(float(graph.target_values[logit]), abs=0.006)


def test_clicking_follows_the_circuit_and_back_returns(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    page.locator("#predictions button").first.click()
    start = page.locator("#panel h2").inner_text()
    feature = page.locator("#panel .rows").first.locator("button:has(.icon.feature)").first
    name = feature.locator(".name").evaluate("element => element.firstChild.textContent")
    feature.click()
    expect(page.locator("#panel h2")).to_have_text(name)
    expect(page.locator("#nodes .node.pinned")).to_have_count(1)
    page.mouse.move(5, 5)
    expect(page.locator("#panel h2")).to_have_text(name)  # held
    page.get_by_role("button", name="Back").click()
    expect(page.locator("#panel h2")).to_have_text(start)
    page.get_by_role("button", name="Let go").click()
    expect(page.locator("#panel h2")).to_have_text("Start here")
    expect(page.locator("#nodes .node.pinned")).to_have_count(0)


def test_the_slider_shows_nodes_up_to_their_cumulative_influence(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    cumulative = cumulative_influence(influence(graph))[embedded(graph)]
    kind = graph.nodes.kind[embedded(graph)]
    for share in (30, 60, 100):
        set_slider(page, share)
        inner = np.isin(kind, (FEATURE, ERROR)) & (cumulative <= share / 100 + 1e-9)
        expect(page.locator("#threshold-value")).to_have_text(f"{share}%, {inner.sum()} nodes")
        shown = inner | np.isin(kind, (TOKEN, LOGIT))
        expect(page.locator(VISIBLE)).to_have_count(int(shown.sum()))
    assert page.locator(f"{VISIBLE}.error").count() > 0
    page.locator("#errors").uncheck()
    expect(page.locator(f"{VISIBLE}.error")).to_have_count(0)
    assert page.locator(f"{VISIBLE}.feature").count() == (kind == FEATURE).sum()


def test_search_finds_by_label_and_enter_holds_the_match(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    set_slider(page, 100)
    page.locator("#search").fill("Capitals")
    expect(page.locator("#matches")).to_have_text("1 found")
    expect(page.locator("#nodes .node.found")).to_have_count(1)
    page.locator("#search").press("Enter")
    expect(page.locator("#panel h2")).to_have_text("names of capitals")
    page.locator("#search").fill("no such thing")
    expect(page.locator("#matches")).to_have_text("0 found")
    page.keyboard.press("Escape")
    expect(page.locator("#panel h2")).to_have_text("Start here")


def test_the_keyboard_reaches_and_follows_nodes(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    set_slider(page, 100)
    expect(page.locator('#nodes [tabindex="0"]')).to_have_count(1)
    page.locator("#search").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#nodes .node:focus")).to_have_count(1)
    kept = embedded(graph)
    logit = int(np.flatnonzero(graph.nodes.is_kind(LOGIT))[0])
    assert int(kept[focused(page)]) == logit
    page.keyboard.press("ArrowDown")
    (first, weight), *_ = strongest_inputs(graph, logit)
    assert int(kept[focused(page)]) == first
    page.keyboard.press("Enter")
    expect(page.locator("#nodes .node.pinned")).to_have_count(1)
    assert int(kept[focused(page)]) == first
    assert written(weight) in page.locator("#panel").inner_text()
    page.keyboard.press("Escape")
    expect(page.locator("#nodes .node.pinned")).to_have_count(0)


def focused(page: Page) -> int:
    return int(page.evaluate("document.activeElement.dataset.id"))


def test_the_causal_check_of_a_node_is_shown_and_its_dots_lead_to_it(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    row = graph.causal["rows"][0]  # type: ignore[index]
    number = int(np.searchsorted(embedded(graph), row["node"]))
    page.locator(f'#scatter .dot[data-node="{number}"]').first.dispatch_event("click")
    table = page.locator("#panel table")
    expect(table).to_contain_text("removed")
    for name in ("predicted_total", "real", "random_real"):
        expect(table).to_contain_text(written(row[name]))
    expect(page.locator("#scatter .dot.current")).to_have_count(2)


def test_the_smallest_graph_without_a_causal_check(open_page: OpenPage) -> None:
    graph = random_graph(0, n_layers=1, n_tokens=1, features_per_cell=0, n_logits=1, density=0)
    page = open_page(graph)
    expect(page.locator("#verdict")).to_contain_text("Not checked")
    expect(page.locator("#statements")).to_contain_text("not run")
    assert page.locator("#scatter svg").count() == 0
    page.locator("#nodes .token").hover()
    expect(page.locator("#panel .hint")).to_contain_text("None of its edges")


def test_hostile_text_is_shown_and_does_nothing(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    evil = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>\u2028'
    hostile = replace(
        graph,
        nodes=replace(graph.nodes, label=[evil] * len(graph.nodes)),
        tokens=[evil] * len(graph.tokens),
        prompt=evil,
        metadata={"model": evil, evil: 1},
    )
    page = open_page(hostile)
    page.locator("#predictions button").first.click()
    page.locator("#nodes .node.feature:not(.gone)").first.hover()
    page.locator("#search").fill("<img")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    for place in ("h1", "#panel h2", "#provenance"):
        expect(page.locator(place)).to_contain_text("<img src=x")


def test_the_policy_of_the_page_forbids_scripts_and_requests(
    browser: Browser, graph: AttributionGraph, tmp_path: Path
) -> None:
    page = browser.new_page()
    page.goto(write_page(graph, tmp_path))
    blocked = page.evaluate(
        """async () => {
            const directives = [];
            document.addEventListener("securitypolicyviolation",
                (event) => directives.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            const image = new Image();
            image.src = "https://example.invalid/x.png";
            await fetch("https://example.invalid/").catch(() => {});
            await new Promise((resolve) => setTimeout(resolve, 200));
            return [window.hacked ?? null, directives.sort()];
        }"""
    )
    page.close()
    assert blocked == [None, ["connect-src", "img-src", "script-src-elem"]]


def test_a_large_graph_stays_within_its_limits(open_page: OpenPage) -> None:
    graph = random_graph(0, n_layers=8, n_tokens=24, features_per_cell=12, density=0.2, n_logits=10)
    page = open_page(graph)
    set_slider(page, int(page.locator("#threshold").get_attribute("max") or 0))
    count = page.locator(VISIBLE).count()
    assert 1500 < count <= 2000 + 24 + 10
    page.locator("#predictions button").first.click()
    expect(page.locator("#panel h3").first).to_contain_text(re.compile(r"12 strongest of \d+"))
    assert 0 < page.locator("#edges path").count() <= 60


def test_the_page_fits_its_window_in_light_and_dark(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    back = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        back[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        for width in (1300, 420):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert back["light"] != back["dark"]
