"""Chains of files: read, labelled, located among tokens, judged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import pellucid
from pellucid.core.errors import DataError, PromptError
from pellucid.introspection.chat import ChatEndpoint
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.free_text import (
    Fields,
    read_labels,
    read_text_chains,
    with_labels,
)
from pellucid.verification.chains.judging import judge_steps
from pellucid.verification.chains.kept import KeptChain
from pellucid.verification.chains.text_chain import TextChain, TextStep
from pellucid.verification.steps.text_places import text_places
from support.chat_server import ChatServer, chat_server
from support.tiny_models import tiny_model

ROWS: list[dict[str, Any]] = [
    {
        "prompt": "two apples and three?",
        "answer": "2 + 3 = 5\n5 * 2 = 11",
        "labels": [True, "wrong"],
    },
    {"prompt": "half of ten?", "answer": "10 / 2 = 5", "id": "b", "group": "tens"},
    {"prompt": "nothing?", "answer": "  \n"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(kept: KeptChain) -> list[str]:
    assert isinstance(kept.chain, TextChain)
    return [kept.chain.step_text(step) for step in kept.chain.steps]


def test_chains_of_jsonl_and_parquet_are_the_same(tmp_path: Path) -> None:
    empty = {"id": None, "group": None, "labels": None}
    rows = [empty | row | {"labels": row.get("labels") and ["right", "wrong"]} for row in ROWS]
    jsonl = read_text_chains(write(tmp_path / "chains.jsonl", rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chains.parquet")
    assert read_text_chains(tmp_path / "chains.parquet") == jsonl
    assert [each.id for each in jsonl] == ["chains-0", "b", "chains-2"]
    assert [each.group for each in jsonl] == ["two apples and three?", "tens", "nothing?"]
    assert [each.labels() for each in jsonl] == [[True, False], [None], []]
    assert texts(jsonl[0]) == ["2 + 3 = 5", "5 * 2 = 11"]
    assert jsonl[2].unread == "the rule 'lines' finds no step in it"


def test_the_prompt_is_shown_in_the_form_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"q": "a {b}?", "a": "c"}])
    kept = read_text_chains(
        path, fields=Fields(prompt="q", text="a"), prompt_form="Q: {prompt}\nA: "
    )
    assert isinstance(kept[0].chain, TextChain) and kept[0].chain.prompt == "Q: a {b}?\nA: "


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, r"line 1 of .* has no text field 'answer' \(it has prompt\)"),
        ({"prompt": "a", "answer": "b", "labels": [1, 0]}, "has 2 labels for 1 steps"),
        ({"prompt": "a", "answer": "b", "labels": ["maybe"]}, "has the label 'maybe'; write right"),
        ({"prompt": "a", "answer": "b", "labels": "right"}, "write a list with one label a step"),
    ],
)
def test_unusable_rows(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_text_chains(write(tmp_path / "x.jsonl", [row]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a", "has the unknown type '.csv'; give .jsonl or .parquet"),
        ("x.jsonl", "[1]", "line 1 of .* is a list; write one object a line"),
        ("x.jsonl", "{", "line 1 of .* is not JSON"),
        ("x.jsonl", "[" * 100_000, "line 1 of .* is not JSON"),
        ("x.jsonl", "", "holds no chains"),
        ("x.parquet", "a", "cannot be read as Parquet"),
        (
            "x.jsonl",
            '{"prompt": "a", "answer": "b", "id": 1}\n' * 2,
            "several chains with the id '1'",
        ),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_text_chains(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_text_chains(tmp_path / "none.jsonl")


def test_labels_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    chains = read_text_chains(write(tmp_path / "c.jsonl", ROWS))
    rows = [{"id": "b", "step": 0, "label": "right"}, {"id": "c-0", "step": 1, "label": "unknown"}]
    labels = read_labels(write(tmp_path / "l.jsonl", rows))
    assert [each.labels() for each in with_labels(chains, labels)] == [[True, None], [True], []]
    with pytest.raises(DataError, match="names step 7 of 'b', which is not there"):
        with_labels(chains, {("b", 7): True})
    with pytest.raises(DataError, match="labels step 0 of 'b' again"):
        read_labels(write(tmp_path / "l.jsonl", rows[:1] * 2))
    with pytest.raises(DataError, match="has no 'label'"):
        read_labels(write(tmp_path / "l.jsonl", [{"id": "b", "step": 0}]))
    with pytest.raises(DataError, match="has the step -1; write a number"):
        read_labels(write(tmp_path / "l.jsonl", [{"id": "b", "step": -1, "label": True}]))


# Places among tokens


def text_chain(prompt: str, text: str, *ranges: tuple[int, int]) -> TextChain:
    steps = tuple(TextStep(number=n, start=a, stop=b) for n, (a, b) in enumerate(ranges))
    return TextChain(prompt=prompt, text=text, steps=steps)


def byte_model() -> LanguageModel:
    """A tiny model that reads bytes, two merged pairs among them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<bos>": 0} | {letter: n for n, letter in enumerate(letters, 1)}
    vocabulary |= {".Ċ": len(vocabulary), "aĊ": len(vocabulary) + 1, "Ġb": len(vocabulary) + 2}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(".", "Ċ"), ("a", "Ċ"), ("Ġ", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>")
    module = tiny_model("llama", vocab_size=len(vocabulary))
    return pellucid.load_model(module, fast, check=False)


def test_places_of_words_on_the_specimen() -> None:
    model = pellucid.load_model("specimen")
    chain = text_chain("( 3 + 4 ) =", " 7 = 8 .", (1, 2), (5, 6))
    ids, places = text_places(model, chain)
    words = [word.strip() for word in model.token_texts(list(ids))]
    assert [words[p.start : p.stop] for p in places] == [["7"], ["8"]]
    assert places[1].roles[0] == "opening"
    assert places[1].roles[1:7] == ("question",) * 6
    assert places[1].roles[7:] == ("earlier", "mark", "answer")
    assert [len(p.roles) for p in places] == [p.stop for p in places]


def test_tokens_that_reach_over_a_border() -> None:
    model = byte_model()
    text = "xa\ny. b"
    ids, places = text_places(model, text_chain("q.\n", text, (0, 2), (3, 5), (5, 7)))
    pieces = model.token_texts(list(ids))
    assert pieces[1:] == ["q", ".\n", "x", "a\n", "y", ".", " b"]
    assert [(p.start, p.stop) for p in places] == [(3, 5), (5, 7), (7, 8)]
    assert places[2].answer == (7, 8)


def test_a_step_without_a_token_of_its_own_is_an_error() -> None:
    chain = text_chain("q", "a\nb", (0, 1), (1, 2))
    with pytest.raises(DataError, match=r"step 1 .* has no token of its own"):
        text_places(byte_model(), chain)


def test_without_a_fast_tokenizer_there_are_no_places() -> None:
    model = pellucid.load_model(tiny_model("llama"), check=False)
    with pytest.raises(PromptError, match="loaded with no tokenizer; steps of free text need"):
        text_places(model, text_chain("a", "b", (0, 1)))


# Judging


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as made:
        yield made


def chains(tmp_path: Path) -> list[KeptChain]:
    return read_text_chains(write(tmp_path / "c.jsonl", ROWS))


def said(*labels: str) -> list[tuple[int, str]]:
    return [(200, json.dumps({"label": label})) for label in labels]


def test_a_judge_labels_what_has_no_label_and_is_measured_on_what_has(
    server: ChatServer, tmp_path: Path
) -> None:
    server.replies = said("right", "right", "wrong")
    told: list[tuple[int, int]] = []
    judged = judge_steps(
        chains(tmp_path), ChatEndpoint(server.url, "j", wait=0), progress=lambda *x: told.append(x)
    )
    assert [each.labels() for each in judged.chains] == [[True, False], [False], []]
    found = judged.agreement
    assert found is not None and (found.n, found.same.value, found.missed, found.alarms) == (
        2,
        0.5,
        1,
        0,
    )
    assert (judged.judged, judged.unjudged, judged.account["prompt_tokens"]) == (3, 0, 21)
    assert told == [(1, 3), (2, 3), (3, 3)]
    shown = json.loads(server.seen[1]["messages"][1]["content"])
    assert shown["steps_before"] == ["2 + 3 = 5"] and shown["step"] == "5 * 2 = 11"


def test_a_judge_that_was_stopped_goes_on_where_it_was(server: ChatServer, tmp_path: Path) -> None:
    server.replies = said("right", "wrong", "right")
    cache = tmp_path / "cache"
    first = judge_steps(chains(tmp_path), ChatEndpoint(server.url, "j", cache=cache, most=2))
    assert (first.judged, first.unjudged) == (2, 1)
    assert first.chains[1].labels() == [None]
    again = judge_steps(chains(tmp_path), ChatEndpoint(server.url, "j", cache=cache))
    assert (again.account["requests"], again.account["cached"], again.unjudged) == (1, 2, 0)
    assert again.chains[1].labels() == [True]


def test_replies_out_of_form_leave_a_step_unknown(server: ChatServer, tmp_path: Path) -> None:
    server.replies = [(200, "Sure!"), *said("certainly")]
    judged = judge_steps(chains(tmp_path), ChatEndpoint(server.url, "j"), known_too=False)
    assert (judged.unjudged, judged.account["unreadable"], judged.agreement) == (1, 1, None)
