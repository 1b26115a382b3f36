"""The page of a chain: what it is given, and that no text can become anything else."""

import json
import re

from pellucid.graphs.page.embed import source_hash
from pellucid.verification.page import chain_page
from pellucid.verification.page.payload import chain_payload
from support.watched import EVIL, repair_record, watched


def test_the_payload_holds_steps_graphs_examples_and_repairs() -> None:
    steps = [watched(0), watched(1, flagged=True), watched(2)]
    payload = chain_payload("a =", steps, repairs=[repair_record(1)])
    assert [step["flagged"] for step in payload["steps"]] == [False, True, False]
    bad = payload["steps"][1]
    assert bad["repairs"][0]["outcome"] == "mended"
    assert list(bad["graphs"]) == ["answer"]
    accused = steps[1].accused[0]
    graph = steps[1].graphs["answer"]
    example = bad["accused"][0]["examples"][0]
    assert example["token"] == graph.tokens[accused.position]
    assert example["activation"] == accused.activation
    json.dumps(payload, allow_nan=False)


def test_examples_that_are_given_are_shown_instead() -> None:
    step = watched(1, flagged=True)
    accused = step.accused[0]
    given = [{"before": "a", "token": "b", "after": "c", "activation": 1.0}] * 9
    examples = {(accused.layer, accused.index): given}
    shown = chain_payload("a", [step], examples=examples)["steps"][0]["accused"][0]["examples"]
    assert shown == given[:5]


def test_no_text_leaves_the_element_of_the_data() -> None:
    page = chain_page(EVIL, [watched(1, text=EVIL, flagged=True)], repairs=[repair_record(1, EVIL)])
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "<img" not in page and "\u2028" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["prompt"] == EVIL


def test_the_policy_admits_the_two_scripts_and_nothing_else() -> None:
    page = chain_page("a", [watched(1, flagged=True)])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    hashes = re.findall(r"'(sha256-[^']*)'", policy[1])
    assert len(set(hashes)) == 4 and "unsafe" not in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert [source_hash(script) in hashes for script in scripts] == [True]
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
