"""Published files, data sets on disk, and parts of questions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import CheckpointError, ConfigError, DataError
from pellucid.verification.chains.expressions import ARITHMETIC
from pellucid.verification.chains.kept import KeptChain, keep_written, summary
from pellucid.verification.chains.published import read_published
from pellucid.verification.chains.questions import draw_questions
from pellucid.verification.chains.splits import deal, part_of
from pellucid.verification.chains.steps import Chain, read_chain
from pellucid.verification.chains.store import load_chains, save_chains
from pellucid.verification.chains.text_chain import TextChain, TextStep
from pellucid.verification.chains.writing import WrittenChain

HEAD = "<|begin_of_text|>user\n\nsolve ((3 + 4) * 2)<|eot_id|>assistant\n\n"


def published(labels: list[Any], end: str = "", **changes: Any) -> list[dict[str, Any]]:
    """One entry as the published files have them."""
    contents, steps, before = ["Add 3 and 4: 7.", "Now 7 * 2 = 15."], [], ""
    for number, (content, label) in enumerate(zip(contents, labels, strict=True)):
        after = before + content
        steps.append(
            {
                "step_number": number,
                "step_content": content,
                "step_label": label,
                "assistant_content_before": before,
                "assistant_content_after": after,
                "formatted_assistant_content_before": HEAD + before + end,
                "formatted_assistant_content_after": HEAD + after + end,
                "anything": 1,
            }
        )
        before = after + "\n\n"
    entry = {
        "expression_id": 7,
        "original_expression": "((3 + 4) * 2)",
        "total_steps": 2,
        "step_expressions": steps,
    }
    return [entry | changes]


def write(tmp_path: Path, entries: Any) -> Path:
    path = tmp_path / "arith.nt2.annotated.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def steps_of(kept: KeptChain) -> list[str]:
    assert isinstance(kept.chain, TextChain)
    return [kept.chain.step_text(step) for step in kept.chain.steps]


@pytest.mark.parametrize("end", ["", "<|eot_id|>"])
def test_published_chains_keep_their_boundaries(tmp_path: Path, end: str) -> None:
    (kept,) = read_published(write(tmp_path, published([True, False], end)))
    assert isinstance(kept.chain, TextChain) and kept.chain.prompt == HEAD
    assert steps_of(kept) == ["Add 3 and 4: 7.", "Now 7 * 2 = 15."]
    assert kept.labels() == [True, False]
    assert (kept.id, kept.group, kept.operators) == (
        "arith.nt2.annotated:7",
        "((3 + 4) * 2)",
        2,
    )


@pytest.mark.parametrize("gone", ["formatted_", "formatted_ assistant_"])
def test_published_chains_without_the_chat_form(tmp_path: Path, gone: str) -> None:
    entries = published(["Correct", None])
    for step in entries[0]["step_expressions"]:
        for name in [n for n in step if n.startswith(tuple(gone.split()))]:
            del step[name]
    (kept,) = read_published(write(tmp_path, entries))
    assert steps_of(kept) == ["Add 3 and 4: 7.", "Now 7 * 2 = 15."]
    assert kept.labels() == [True, None]


def test_published_steps_that_do_not_fit_together_are_kept_unread(tmp_path: Path) -> None:
    entries = published([True, True])
    entries[0]["step_expressions"][0]["formatted_assistant_content_after"] += "?"
    entries += published([True, True], step_expressions=[], expression_id="8")
    kept = read_published(write(tmp_path, entries))
    assert [each.unread for each in kept] == [
        "its contents do not continue each other",
        "it has no steps",
    ]
    assert summary(kept)["reasons"] == {
        "its contents do not continue each other": 1,
        "it has no steps": 1,
    }


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "holds no list of expressions"),
        ([1], "entry 0 of .* is a int; each must be a JSON object"),
        (published([True, 2]), "has the label 2; write right"),
        (
            published([True, True], original_expression=None),
            "no usable field 'original_expression'",
        ),
        (published([True, True], step_expressions=[{}]), "step 0 of entry 0 .* 'step_number'"),
    ],
)
def test_unusable_published_files(tmp_path: Path, entries: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_published(write(tmp_path, entries))


def test_a_published_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*; give a local .json file or one of the hub"):
        read_published(tmp_path / "none.json")
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_published(deep)


# Data sets on disk


def written(text: str) -> WrittenChain:
    ids = tuple(range(len(text.split()) + 1))
    try:
        chain: Chain | None = read_chain(ARITHMETIC, text.split())
        unread = None
    except DataError as error:
        chain, unread = None, str(error)
    return WrittenChain(ids=ids, prompt_length=9, chain=chain, unread=unread)


TEXTS = [
    "( ( 3 + 4 ) * 2 ) = ( 8 * 2 ) = 17 = 17 .",
    "( ( 3 + 4 ) * 2 ) = ( 7 * 2 ) = 14 .",
    "( 3 + 4 ) =",
    "( 3 + 4 ) = 7",
    "( - ( 3 + 4 ) ) = ( - 7 ) = apple",
]
QUESTIONS = [text.split(" = ")[0].removesuffix(" =").split() for text in TEXTS]


def data_set() -> list[KeptChain]:
    made = keep_written(map(written, TEXTS), QUESTIONS, source="plain", language="arithmetic")
    text = TextChain(
        prompt="q", text="a b", steps=(TextStep(number=0, start=0, stop=1, right=False),)
    )
    free = KeptChain(id="t", source="x", language="text", group="q", operators=0, chain=text)
    return [*made, free]


def test_data_sets_are_read_back_as_they_were(tmp_path: Path) -> None:
    manifest = save_chains(tmp_path / "set", data_set(), record={"temperature": 0.3}, seed=5)
    assert load_chains(tmp_path / "set") == data_set()
    assert manifest.results | {"reasons": {}} == {
        "chains": 6,
        "unread": 2,
        "steps": 7,
        "wrong": 4,
        "unknown": 0,
        "after_error": 2,
        "reasons": {},
        "errors": {"slip": 2, "stalled": 1},
    }
    assert sum(manifest.results["reasons"].values()) == 2
    assert data_set()[4].operators == 2


def test_strict_truncation_is_chosen_when_a_set_is_read(tmp_path: Path) -> None:
    save_chains(tmp_path / "set", data_set())
    strict = load_chains(tmp_path / "set", strict=True)
    assert [len(each.labels()) for each in strict] == [1, 2, 0, 0, 1, 1]
    assert [each.unread for each in strict] == [each.unread for each in data_set()]


def test_damaged_and_empty_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no chains to save"):
        save_chains(tmp_path / "set", [])
    with pytest.raises(DataError, match="two chains have one id"):
        save_chains(tmp_path / "set", data_set()[:1] * 2)
    save_chains(tmp_path / "set", data_set())
    file = tmp_path / "set" / "chains.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_chains(tmp_path / "set")


# Parts


@given(st.lists(st.text(max_size=5), min_size=1, max_size=50), st.integers(0, 9))
def test_parts_hold_every_row_once_and_no_group_twice(groups: list[str], seed: int) -> None:
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    parts = deal(groups, shares, seed=seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(groups)))
    where = {name: {groups[row] for row in rows} for name, rows in parts.items()}
    assert not where["train"] & where["test"] and not where["train"] & where["validation"]


def test_parts_have_about_their_shares_and_do_not_depend_on_the_set() -> None:
    questions = [" ".join(q) for q in draw_questions("paper-arithmetic", (3, 6), 2000, 0)]
    parts = deal(questions, {"train": 0.8, "test": 0.2})
    assert abs(len(parts["test"]) / 2000 - 0.2) < 0.03
    alone = [part_of(question, {"train": 0.8, "test": 0.2}) for question in questions]
    assert [n for n, part in enumerate(alone) if part == "test"] == parts["test"].tolist()
    with pytest.raises(ConfigError, match="do not sum to 1"):
        part_of("a", {"train": 0.5})


@pytest.mark.parametrize("grammar", ["arithmetic", "boolean", "paper-arithmetic", "paper-boolean"])
def test_questions_may_have_any_number_of_operators(grammar: str) -> None:
    (question,) = draw_questions(grammar, (25, 25), 1, seed=1)
    assert question.count("(") >= 25
