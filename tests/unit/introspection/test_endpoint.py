import json
from collections.abc import Iterator
from typing import Any

import pytest

from pellucid.core.errors import ConfigError, DataError
from pellucid.introspection.endpoint import EndpointJudge
from pellucid.introspection.judges import Judgement
from support.chat_server import ChatServer, chat_server


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as made:
        yield made


def said(answered: str, named: str | None = None) -> tuple[int, str]:
    return 200, json.dumps({"answered": answered, "named": named})


def judge(server: ChatServer, **options: Any) -> EndpointJudge:
    return EndpointJudge(server.url, "grader", ["Honey", "chess"], wait=0.0, **options)


def test_replies_are_read_and_equal_answers_are_asked_about_once(server):
    server.replies = [said("yes", "honey"), said("no", "chess")]
    read = judge(server, key="secret").read("Trial 1?", ["a", "a", "b"])
    yes = Judgement(answered="yes", named="Honey")
    assert read == [yes, yes, Judgement(answered="no")]
    assert len(server.seen) == 2
    assert server.keys == ["Bearer secret"] * 2
    assert json.loads(server.seen[0]["messages"][1]["content"])["answer"] == "a"


def test_busy_servers_are_tried_again_and_the_account_says_so(server):
    server.replies = [(503, ""), (429, ""), said("refused")]
    asking = judge(server)
    assert asking.read("q", ["a"])[0].answered == "refused"
    assert (asking.account.requests, asking.account.prompt_tokens) == (3, 7)
    assert "secret" not in json.dumps(judge(server, key="secret").to_json())


def test_a_refusal_is_an_error_at_once(server):
    server.replies = [(401, "")]
    with pytest.raises(DataError, match=r"no reply \(status 401\); check its URL, model and key"):
        judge(server).read("q", ["a"])
    assert len(server.seen) == 1


def test_replies_out_of_form_count_as_unclear(server):
    server.replies = [(200, "Sure! yes"), said("perhaps"), (200, "[]"), said("yes", "honey")]
    asking = judge(server)
    read = asking.read("q", ["a", "b", "c", "d"])
    assert [each.answered for each in read] == ["unclear"] * 3 + ["yes"]
    assert asking.account.unreadable == 3


def test_the_cache_answers_the_second_time_and_forgets_nothing(server, tmp_path):
    server.replies = [said("yes", "chess")]
    first = judge(server, cache=tmp_path).read("q", ["a"])
    again = judge(server, cache=tmp_path)
    assert again.read("q", ["a"]) == first
    assert (again.account.requests, again.account.cached, len(server.seen)) == (0, 1, 1)
    again.read("another question", ["a"])
    assert len(server.seen) == 2


def test_agreement_with_labels_is_kappa(server):
    server.replies = [said("yes"), said("yes"), said("no"), said("no")]
    labelled = [("a", "yes"), ("b", "no"), ("c", "no"), ("d", "no")]
    assert judge(server).agreement("q", labelled) == pytest.approx(0.5)


def test_a_url_of_another_scheme_is_refused():
    with pytest.raises(ConfigError, match=r"URL is 'file:///x'; write one such as https://"):
        EndpointJudge("file:///x", "grader", [])
