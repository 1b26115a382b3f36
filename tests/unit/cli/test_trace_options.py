"""What `trace` can be asked to explain, out of what, and within which limits."""

import json
from pathlib import Path

import pytest

from pellucid.cli.targets import parse_target
from pellucid.core.errors import ConfigError
from pellucid.graphs.formats.parquet import read_parquet
from pellucid.graphs.graph import AttributionGraph
from unit.cli.conftest import Command, Workshop


def traced(pellucid: Command, workshop: Workshop, out: Path, *options: object) -> dict:
    outcome = pellucid(
        *("trace", workshop.model, "w5 w6 w7", "--dictionaries", workshop.dictionaries),
        *("--out", out, "--no-causal", "--json", *options),
    )
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_a_difference_a_feature_and_a_token_id_are_explained(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    out = tmp_path / "graph"
    traced(pellucid, workshop, out, "--target", "difference:w8,#9", "--target", "logit:w8")
    graph = AttributionGraph.load(out)
    assert [record["kind"] for record in graph.metadata["targets"]] == ["difference", "logit"]
    layer, feature, position = (
        int(column[0]) for column in (graph.nodes.layer, graph.nodes.index, graph.nodes.position)
    )
    traced(pellucid, workshop, out, "--target", f"feature:{layer}.{feature}@{position}")
    assert AttributionGraph.load(out).metadata["targets"] == [
        {"kind": "feature", "layer": layer, "feature": feature, "position": position}
    ]


def test_neurons_lazy_dictionaries_and_lower_precision_are_options(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    plain = traced(pellucid, workshop, tmp_path / "a")
    lazy = traced(pellucid, workshop, tmp_path / "b", "--lazy", "--max-memory", "16GiB")
    assert lazy["scores"] == pytest.approx(plain["scores"], rel=1e-4)
    traced(pellucid, workshop, tmp_path / "c", "--precision", "bfloat16")
    record = AttributionGraph.load(tmp_path / "c").metadata["precision"]
    assert record["sweep"] == "bfloat16"
    outcome = pellucid(
        *("trace", workshop.model, "w5 w6", "--dictionaries", "neurons", "--json"),
        *("--out", tmp_path / "d", "--no-causal"),
    )
    assert json.loads(outcome.out)["nodes"]["error"] == 0


def test_a_file_of_prompts_becomes_a_dataset(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "w5 w6", "id": "a"}\n{"ids": [7, 8, 9], "id": "b"}\n')
    arguments = (
        *("trace", workshop.model, "--dictionaries", workshop.dictionaries),
        *("--prompts", prompts, "--out", tmp_path / "out", "--no-causal", "--json"),
    )
    first, second = (json.loads(pellucid(*arguments).out) for _ in range(2))
    assert (first["traced"], first["found"]) == (2, 0)
    assert (second["traced"], second["found"]) == (0, 2)
    assert [name for name, _ in read_parquet(tmp_path / "out")] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("w5", "--prompts", "p.txt"), "PROMPT is for one prompt and cannot go with --prompts"),
        (("--prompts", "absent.txt"), "absent.txt cannot be read as text"),
        (("w5", "--target", "nonsense"), "--target is 'nonsense'"),
        (("w5", "--target", "logit:nowhere"), "'nowhere' is not one token"),
        (("w5", "--max-memory", "much"), "'much' is not an amount of memory"),
        (("w5", "--max-memory", "1kB"), "max_memory is 0 MiB"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    pellucid: Command,
    workshop: Workshop,
    tmp_path: Path,
    options: tuple[str, ...],
    message: str,
) -> None:
    outcome = pellucid(
        *("trace", workshop.model, *options, "--dictionaries", workshop.dictionaries),
        *("--out", tmp_path / "graph"),
    )
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.strip().count("\n") == 0


@pytest.mark.parametrize("text", ["", "logit:", "difference:a", "feature:1", "feature:a.b", "x:y"])
def test_targets_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--target is"):
        parse_target(text)
