"""`pellucid trace --report`: what it writes, what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest

from pellucid.graphs.graph import AttributionGraph
from unit.cli.conftest import Command, Workshop


def test_a_report_with_paraphrases_and_other_dictionaries(
    pellucid: Command, workshop: Workshop, tmp_path: Path
) -> None:
    wordings = tmp_path / "wordings.txt"
    wordings.write_text("w5 w6 w9 w8\n\n  w5 w6 w7 w9 \n", encoding="utf-8")
    out, page = tmp_path / "graph", tmp_path / "deep" / "report.html"
    outcome = pellucid(
        *("trace", workshop.model, "w5 w6 w7 w8", "--dictionaries", workshop.dictionaries),
        *("--out", out, "--report", page, "--paraphrases", wordings),
        *("--compare", "neurons", "--compare", workshop.dictionaries, "--json"),
    )
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["files"] == {"graph": str(out), "report": str(page)}
    report = record["report"]
    assert report["paraphrases"]["graphs"] == 3
    assert set(report["dictionaries"]) == {"neurons", str(workshop.dictionaries)}
    assert len(report["thresholds"]["steps"]) == 3
    assert report["supernodes"]["accepted"] <= report["supernodes"]["tested"]
    same = report["dictionaries"][str(workshop.dictionaries)]["figures"]
    assert same["weighted_edge_jaccard"]["value"] == pytest.approx(1.0)
    assert {"replacement_low", "completeness_high"} <= set(record["scores"])
    assert record["causal"]["by_depth"]
    assert "downstream" not in record["causal"]
    assert "w5 w6 w7 w8" in page.read_text(encoding="utf-8")
    checks = AttributionGraph.load(out).metadata["supernode_checks"]
    assert len(checks) == report["supernodes"]["tested"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--compare", "neurons"), "--compare is given without --report; add --report FILE"),
        (("--paraphrases", "x.txt"), "--paraphrases is given without --report"),
        (
            ("--report", "r.html", "--paraphrases", "absent.txt"),
            "absent.txt cannot be read",
        ),
        (("--report", "r.html", "--paraphrases", "empty.txt"), "holds no prompt; write one a line"),
        (("--report", "r.html", "--paraphrases", "bad.txt"), "paraphrase 2, 'nonsense'"),
        (("--report", "r.html", "--compare", "nowhere"), "nowhere"),
    ],
)
def test_what_a_report_cannot_be_made_of(
    pellucid: Command,
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n \n", encoding="utf-8")
    Path("bad.txt").write_text("w5 w6\nnonsense\n", encoding="utf-8")
    outcome = pellucid(
        *("trace", workshop.model, "w5 w6 w7", "--dictionaries", workshop.dictionaries),
        *("--out", "graph", *options),
    )
    assert outcome.code == 2
    assert message in outcome.err
    assert not Path("r.html").exists()
