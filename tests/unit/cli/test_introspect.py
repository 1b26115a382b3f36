import json

import pytest

SMALL = ("--layers", "1", "--strengths", "2", "--trials", "1", "--seed", "1")


def test_the_verb_prints_the_fixed_keys_and_writes_its_files(pellucid, tmp_path):
    out, page = tmp_path / "out.json", tmp_path / "report.md"
    done = pellucid(
        *("introspect", "specimen:yes-bias", *SMALL, "--judge", "logits"),
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
