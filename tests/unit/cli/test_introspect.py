import json
from dataclasses import asdict

import pytest

from pellucid.introspection.wording import read_wording

SMALL = ("--layers", "1", "--strengths", "2", "--trials", "1", "--seed", "1")


def test_the_verb_prints_the_fixed_keys_and_writes_its_files(pellucid, tmp_path):
    out, page, wording = (tmp_path / name for name in ("out.json", "report.md", "wording.json"))
    said = asdict(read_wording("specimen"))
    wording.write_text(json.dumps(said | {"concepts": said["concepts"][:12]}))
    done = pellucid(
        *("introspect", "specimen:yes-bias", *SMALL, "--judge", "logits", "--wording", wording),
        *("--out", out, "--report", page, "--json", "--quiet"),
    )
    assert done.code == 0
    record = json.loads(done.out)
    assert record["verdict"] == "no evidence"
    for arm in record["arms"].values():
        assert {"rate", "low", "high", "n"} <= set(arm)
    assert json.loads(out.read_text())["verdict"] == "no evidence"
    assert page.read_text().startswith("# Introspection: specimen:yes-bias")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("specimen:poet",), "no organism 'poet'"),
        (("specimen", "--judge", "https://x/v1"), "without --judge-model"),
        (("specimen", "--judge-model", "x"), "are for an endpoint"),
        (("specimen", "--judge", "psychic", "--judge-model", "x"), "URL is 'psychic'"),
        (("specimen", "--strengths", "a"), "'a' is not a list of numbers"),
        (("specimen", "--strengths", "nan"), "give positive numbers"),
        (("specimen", "--layers", "9"), "use 0 to 3"),
        (("specimen", "--wording", "klingon"), "no wording at 'klingon'"),
        (("specimen", "--wording", "english"), "does not know any of the words"),
        (
            ("specimen:reporter", "--train-organism", "reporter"),
            "organisms are made of the specimen",
        ),
    ],
)
def test_bad_input_is_one_line(pellucid, arguments, message):
    done = pellucid("introspect", *arguments, "--quiet")
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
