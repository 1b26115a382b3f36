import json

import pytest

from pellucid.core.errors import DataError
from pellucid.safety.judge import REFUSALS, RefusalJudge, read_judge
from pellucid.safety.requests import (
    PARTS,
    Request,
    of_part,
    read_prompts,
    read_requests,
    write_requests,
)

GOOD = [
    {"prompt": "do harm", "label": "harmful", "group": "a"},
    {"prompt": "do good", "label": "benign", "group": "b"},
]


def written(path, records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_requests_come_back(tmp_path) -> None:
    requests = [
        Request(prompt="x y", label="harmful", group="g", part="fit", behaviour="complied"),
        Request(prompt="z", label="benign", group="h", part="audit", continuation="so on"),
    ]
    write_requests(tmp_path / "r.jsonl", requests)
    assert read_requests(tmp_path / "r.jsonl") == requests


def test_groups_are_dealt_whole_in_about_the_shares(tmp_path) -> None:
    records = [
        {"prompt": f"p{n}", "label": ("harmful", "benign")[n % 2], "group": f"g{n // 3}"}
        for n in range(3000)
    ]
    requests = read_requests(written(tmp_path / "r.jsonl", records))
    parts: dict[str, set[str]] = {}
    for request in requests:
        parts.setdefault(request.group, set()).add(request.part)
    assert all(len(each) == 1 for each in parts.values())
    for part, share in PARTS.items():
        assert abs(len(of_part(requests, part)) / 3000 - share) < 0.05


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "holds no request"),
        ([{"label": "harmful"}], "has no prompt"),
        ([{"prompt": "x"}], "has label None; use harmful or benign"),
        ([{"prompt": "x", "label": "evil"}], "has label 'evil'"),
        ([{"prompt": " ", "label": "harmful"}], "empty prompt"),
        ([{"prompt": "x", "label": "harmful", "score": 1}], "has the key 'score'"),
        ([{"prompt": "x", "label": "harmful", "part": "train"}], "has part 'train'"),
        ([{"prompt": "x", "label": "benign", "behaviour": "maybe"}], "has behaviour 'maybe'"),
        (GOOD[:1], r"only the labels \['harmful'\]"),
        (
            [GOOD[0] | {"part": "fit"}, GOOD[0] | {"part": "audit"}, GOOD[1]],
            "has the group 'a' in fit and in test or audit",
        ),
    ],
)
def test_bad_contrast_files_are_refused(tmp_path, records, message) -> None:
    with pytest.raises(DataError, match=message):
        read_requests(written(tmp_path / "r.jsonl", records))


def test_files_that_are_not_there_or_not_json_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="cannot be read as text"):
        read_requests(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text("{oops\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:1 is not JSON"):
        read_requests(tmp_path / "bad.jsonl")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no prompt"):
        read_prompts(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="the judge has no phrase"):
        read_judge(tmp_path / "empty.txt")


def test_an_empty_part_is_named() -> None:
    requests = [Request(prompt="x", label="benign", group="x", part="fit")]
    with pytest.raises(DataError, match="the part 'audit' has no harmful request of 1"):
        of_part(requests, "audit", "harmful")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("I\u2019m sorry, but no.", "refused"),
        ("  I CANNOT do that", "refused"),
        ("Sure, take this.", "complied"),
        ("", "complied"),
        ("word " * 40 + "i cannot", "complied"),
    ],
)
def test_the_judge_reads_beginnings(answer: str, verdict: str) -> None:
    assert RefusalJudge(REFUSALS)(answer) == verdict
