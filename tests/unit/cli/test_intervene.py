"""`pellucid intervene`: what it says is what the library measures; bad input is one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from pellucid import api
from pellucid.cli.edits import parse_where
from pellucid.interventions import Clamp, Intervention, Where, generate, run
from unit.cli.conftest import Command

PROMPT = "the capital of the state containing dallas is"


@pytest.fixture(scope="module")
def strongest() -> tuple[int, int]:
    """The feature of the packaged model that is most active at the prompt's end."""
    model, dictionaries = api.load_model("specimen"), api.load_dictionaries("specimen")
    site = dictionaries[3].read_site
    x = model.activations(model.encode(PROMPT)[None], [site])[site][0, -1:]
    codes = dictionaries[3].encode(x)
    return 3, int(codes.indices[0, codes.values[0].argmax()])


def test_receipt_effect_and_text_are_the_librarys(
    pellucid: Command, strongest: tuple[int, int]
) -> None:
    layer, feature = strongest
    outcome = pellucid(
        *("intervene", "specimen", PROMPT, "--clamp", f"{layer}:{feature}=-30", "--where", "-1"),
        *("--generate", 2, "--compare", "--draws", 4, "--json"),
    )

    assert outcome.code == 0, outcome.err
    record: dict[str, Any] = json.loads(outcome.out)
    model, dictionaries = api.load_model("specimen"), api.load_dictionaries("specimen")
    edit = Intervention(f"feature@{layer}[{feature}]", Clamp(-30.0), Where(positions=(-1,)))
    done = generate(model, [PROMPT], [edit], dictionaries=dictionaries, max_new_tokens=2)
    before = run(model, [PROMPT]).last.log_softmax(-1)
    after = run(model, [PROMPT], [edit], dictionaries=dictionaries).last.log_softmax(-1)
    kl = float((before.exp() * (before - after)).sum())

    assert record["receipt"] == json.loads(json.dumps(done.receipt.to_json()))
    assert record["receipt"]["tokens_edited"] == 1
    assert record["generated"]["edited"] == done.texts
    assert record["generated"]["unedited"][0].startswith("austin")
    assert record["effect"]["kl"] == pytest.approx(kl, rel=1e-3, abs=1e-6)
    (effect,) = record["effect"]["prompts"]
    assert effect["before"][0]["token"] == "austin"
    assert effect["control"]["draws"] == 4


def test_a_file_and_several_prompts(pellucid: Command, tmp_path: Path) -> None:
    file = tmp_path / "edits.json"
    file.write_text(
        json.dumps(
            [
                {"site": "resid_post@1", "op": {"scale": {"factor": 0.0}}, "rows": [1]},
                {"site": "z@2[0]", "op": {"set": {"value": 0.0}}, "where": {"spans": ["capital"]}},
            ]
        )
    )
    outcome = pellucid(
        *("intervene", "specimen", PROMPT, "the capital of texas is"),
        *("--file", file, "--draws", 2, "--json"),
    )
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert [site["by_row"] for site in record["receipt"]["sites"]] == [
        [[1, 5, 0]],
        [[0, 1, 0], [1, 1, 0]],
    ]
    assert record["effect"]["prompts"][1]["kl"] > record["effect"]["prompts"][0]["kl"]


def test_generated_tokens_alone_have_no_effect_on_the_next(pellucid: Command) -> None:
    arguments = ("intervene", "specimen", PROMPT, "--at", "resid_post@1", "--scale", "0")
    outcome = pellucid(*arguments, "--where", "generated", "--generate", 3, "--json")
    record = json.loads(outcome.out)
    assert record["effect"] is None
    assert record["receipt"]["sites"][0]["tokens_edited"] == {"prefill": 0, "decode": 2}

    shown = pellucid(*arguments, "--draws", 2)
    assert shown.code == 0
    assert "resid_post@1" in shown.out and "random edits" in shown.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "there is no intervention"),
        (["--clamp", "1:2"], "LAYER:FEATURE=VALUE"),
        (["--clamp", "1:2=x"], "--clamp has 'x'"),
        (["--clamp", "1:2=nan"], "value of clamp is nan"),
        (["--clamp", "1:99999=2"], "out of range"),
        (["--ablate", "5"], "write LAYER:FEATURE"),
        (["--ablate", "9:5"], "has no layer 9"),
        (["--at", "resid@1", "--scale", "2"], "unknown site 'resid@1'"),
        (["--at", "resid_post@1"], "0 operations"),
        (["--at", "resid_post@1", "--scale", "2", "--set", "1"], "2 operations"),
        (["--at", "resid_post@1", "--add", "missing.json"], "missing.json cannot be read"),
        (["--scale", "2"], "needs a place"),
        (["--ablate", "1:2", "--where", "somewhere"], "--where has 'somewhere'"),
        (["--ablate", "1:2", "--where", "99"], "position 99 is beyond"),
        (["--ablate", "1:2", "--where", "text=paris"], "span 'paris' does not occur"),
        (["--ablate", "1:2", "--where", "{"], "not valid JSON"),
        (["--ablate", "1:2", "--where", "generated"], "selects no token"),
        (["--ablate", "1:2", "--clamp", "1:2=3"], "both fix the same tokens"),
        (["--ablate", "1:2", "--compare"], "say how much with --generate"),
        (["--file", "missing.json"], "missing.json cannot be read"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(pellucid: Command, flags: list[str], message: str) -> None:
    outcome = pellucid("intervene", "specimen", PROMPT, *flags)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_where_is_read_clause_by_clause() -> None:
    assert parse_where("prompt, 3,-1,2:5,-3:,text=new york,generated") == Where(
        positions=(3, -1),
        windows=((2, 5), (-3, None)),
        spans=("new york",),
        prompt=True,
        generated=(0, None),
    )
    assert parse_where('{"generated": [0, 2]}') == Where(generated=(0, 2))
    assert parse_where(None).everywhere
