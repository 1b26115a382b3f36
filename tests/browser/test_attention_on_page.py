"""Attention on the graph page: the heads of a node's inputs, and why a head looks where it does."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from pellucid.graphs.graph import AttributionGraph
from pellucid.graphs.scores import scores
from pellucid.graphs.tables import FEATURE
from support.attention import attention_record
from support.graphs import causal_record, random_graph

OpenPage = Callable[..., Page]


@pytest.fixture
def graph() -> AttributionGraph:
    graph = random_graph(7, n_layers=4, n_tokens=5)
    labels = list(graph.nodes.label)
    labels[int(np.flatnonzero(graph.nodes.is_kind(FEATURE))[0])] = "names of capitals"
    graph = replace(
        graph,
        nodes=replace(graph.nodes, label=labels),
        scores=scores(graph)._asdict(),
        causal=causal_record(graph),
    )
    return replace(graph, metadata=graph.metadata | {"attention": attention_record(graph)})


def test_the_start_names_the_heads_that_carry_most(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    rows = page.locator("#panel .heads li")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("Layer 1 head 0")
    expect(rows.first).to_contain_text("30.0%")
    expect(page.locator("#panel .hint", has_text="passes no head")).to_contain_text("55%")
    trusted = page.locator("#panel table.trusted tr")
    expect(trusted.nth(1)).to_contain_text("0.61 [0.22, 0.83]")
    expect(trusted.nth(1)).to_contain_text("0.05 [−0.40, 0.50]")  # noqa: RUF001
    expect(trusted.nth(2)).to_contain_text("0.87 [0.70, 0.95]")
    expect(page.locator("#provenance")).not_to_contain_text("attention")


def test_a_nodes_inputs_are_split_by_head_and_a_head_says_why(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    page.locator("#predictions button").first.click()
    rows = page.locator("#panel .heads li")
    texts = rows.all_inner_texts()
    assert [text.split("\n")[-1] for text in texts] == ["+3.00", "−1.00", "+0.50", "+0.25"]  # noqa: RUF001
    expect(page.locator("#panel h3", has_text="Which heads carry it")).to_contain_text(
        "2 strongest"
    )
    expect(page.locator("#panel")).to_contain_text("Other heads: +0.13.")
    assert page.locator("#panel .heads button").count() == 2, (
        "a head without a record leads nowhere"
    )

    page.locator('#panel [data-head="1.0"]').click()
    expect(page.locator("#panel h2")).to_have_text("Layer 1 head 0")
    tokens = graph.tokens
    expect(page.locator("#panel header")).to_contain_text(
        f"looks from “{tokens[3]}”, position 3, to “{tokens[1]}”, position 1"
    )
    expect(page.locator("#panel header")).to_contain_text("+2.75 against the other keys")
    expect(page.locator("#panel .facts")).to_contain_text("63%")
    expect(page.locator("#panel .facts")).to_contain_text("41%")
    pairs = page.locator("#panel table.pairs").first.locator("tr")
    expect(pairs.nth(1)).to_contain_text("names of capitals")
    expect(pairs.nth(1)).to_contain_text("constants")
    expect(pairs.nth(1)).to_contain_text("+1.75")
    expect(pairs.nth(2)).to_contain_text("Feature 999999")
    assert pairs.nth(2).locator("button").count() == 1, "a source off the page is no link"
    removals = page.locator("#panel table.removals td").all_inner_texts()
    assert removals[1:] == ["−1.25", "−0.88", "−0.75", "+0.50"]  # noqa: RUF001
    expect(page.locator("#panel table.trusted")).to_contain_text("random features")

    page.mouse.move(5, 5)
    expect(page.locator("#panel h2")).to_have_text("Layer 1 head 0")  # held
    page.locator("#panel button.source").first.click()
    expect(page.locator("#panel h2")).to_have_text("names of capitals")
    expect(page.locator("#nodes .node.pinned")).to_have_count(1)


def test_closing_a_head_returns_to_the_node_and_an_unchecked_head_says_so(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(graph)
    page.locator("#predictions button").first.click()
    start = page.locator("#panel h2").inner_text()
    page.locator('#panel [data-head="0.1"]').click()
    expect(page.locator("#panel")).to_contain_text("Not checked by intervention")
    expect(page.locator("#panel header")).not_to_contain_text("other keys")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#panel h2")).to_have_text(start)
    page.locator('#panel [data-head="0.1"]').click()
    page.keyboard.press("Escape")
    expect(page.locator("#panel h2")).to_have_text("Start here")


def test_without_an_attention_record_no_head_is_mentioned(
    open_page: OpenPage, graph: AttributionGraph
) -> None:
    page = open_page(replace(graph, metadata={"model": "tiny"}))
    page.locator("#predictions button").first.click()
    assert page.locator("#panel .heads").count() == 0
