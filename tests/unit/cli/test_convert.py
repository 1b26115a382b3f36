"""`pellucid convert` and the check that `pellucid eval` begins with."""

import json
from pathlib import Path

from pellucid.dictionaries import DictionarySet, load_dictionaries, save_dictionaries
from pellucid.models.load import load_model
from support.tiny_dictionaries import relu, tiny_transcoders
from unit.cli.conftest import Command, Workshop


def test_there_and_back(pellucid: Command, workshop: Workshop, tmp_path: Path) -> None:
    source, model = workshop.dictionaries, ("--model", workshop.model)
    there = pellucid("convert", source, tmp_path / "a", "--to", "sparsify", *model, "--json")
    record = json.loads(there.out)
    assert (record["lossless"], record["max_abs_diff"], record["lost"]) == (True, 0.0, [])
    assert record["format"] == "sparsify"
    back = pellucid("convert", tmp_path / "a", tmp_path / "b", "--to", "pellucid", *model, "--json")
    assert json.loads(back.out)["max_abs_diff"] == 0.0
    before, after = load_dictionaries(source), load_dictionaries(tmp_path / "b")
    assert after.manifest is not None
    assert before.manifest is not None
    assert after.manifest.parents == before.manifest.parents
    for layer in before.layers:
        assert after[layer].read_site == before[layer].read_site
        assert (after[layer].W_dec == before[layer].W_dec).all()


def test_other_verbs_take_another_tools_dictionaries(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    pellucid("convert", workshop.dictionaries, out, "--to", "sparsify", "--model", workshop.model)
    arguments = ("--data", workshop.text, "--tokens", 300, "--no-layerwise", "--json")
    ours = pellucid("eval", workshop.model, "--dictionaries", workshop.dictionaries, *arguments)
    theirs = pellucid("eval", workshop.model, "--dictionaries", out, *arguments)
    assert json.loads(theirs.out)["layers"] == json.loads(ours.out)["layers"]
    assert json.loads(theirs.out)["replacement"] == json.loads(ours.out)["replacement"]


def test_what_is_lost_is_lost_on_request_and_said(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    arguments = ("convert", workshop.dictionaries, tmp_path / "a", "--to", "saelens")
    refused = pellucid(*arguments)
    assert refused.code == 2
    assert "has no TopK" in refused.err
    assert "--lossy" in refused.err
    refused = pellucid(*arguments, "--lossy", "--data", workshop.text)
    assert refused.code == 2
    assert "--data needs the model" in refused.err
    refused = pellucid(*arguments, "--data", workshop.text)
    assert refused.code == 2
    assert "--data is for what --lossy loses" in refused.err
    lost = pellucid(
        *(*arguments, "--lossy", "--data", workshop.text, "--model", workshop.model, "--json")
    )
    record = json.loads(lost.out)
    assert record["lossless"] is False
    assert len(record["lost"]) == 3
    assert record["max_abs_diff"] > 0


def test_bad_input_is_one_line(pellucid: Command, workshop: Workshop, tmp_path: Path) -> None:
    for arguments, message in (
        ((workshop.dictionaries, tmp_path / "a", "--to", "onnx"), "unknown dictionary format"),
        ((tmp_path / "none", tmp_path / "a", "--to", "saelens"), "there is no folder"),
        ((workshop.text.parent, tmp_path / "a", "--to", "saelens"), "no format that pellucid"),
        ((workshop.dictionaries, tmp_path, "--to", "pellucid"), "exists already"),
        ((workshop.dictionaries, tmp_path / "a", "--to", "sparsify"), r"(--model)"),
    ):
        outcome = pellucid("convert", *arguments)
        assert outcome.code == 2
        assert message in outcome.err
        assert outcome.err.count("\n") == 1


def test_eval_refuses_a_wrong_site_before_it_measures(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    model = load_model(workshop.model)
    useless: DictionarySet = tiny_transcoders(model, activation=relu())
    figures = [{"layer": layer, "fvu": 0.01, "l0": 12.0} for layer in useless.layers]
    folder = save_dictionaries(
        tmp_path / "set",
        useless.dictionaries,
        model_fingerprint=model.fingerprint(),
        results={"layers": figures},
    )
    arguments = ("eval", workshop.model, "--dictionaries", folder, "--data", workshop.text)
    refused = pellucid(*arguments, "--tokens", 300)
    assert refused.code == 2
    assert "the likely cause is a wrong site" in refused.err
    assert pellucid(*arguments, "--tokens", 300, "--no-layerwise", "--no-self-check").code == 0
