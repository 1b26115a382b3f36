"""A sweep of tiny trainings: what it writes, refuses, reuses and resumes."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.dictionaries import load_dictionaries
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.training.sweep import Grid, SweepProgress, SweepResult, points, sweep
from pellucid.training.sweep import run as sweep_module
from support.tiny_models import tiny_model, word_tokenizer
from support.word_text import word_documents

TOKENIZER = word_tokenizer()
MODEL = load_model(tiny_model("llama", tokenizer=TOKENIZER), TOKENIZER)
TEXT = TextList(word_documents(100, longest=40))
GRID: dict[str, Any] = {"k": [2, 4], "features": [48], "batch_tokens": 128}


def run(out: Path, grid: dict[str, Any] = GRID, **changes: Any) -> SweepResult:
    options = {"tokens": 600, "measure_tokens": 300} | changes
    return sweep(MODEL, TEXT, out, Grid(**grid), **options)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trainings that were begun or gone on with."""
    names: list[str] = []
    train = sweep_module.train

    def counted(model: Any, text: Any, out: Path, **options: Any) -> Any:
        names.append(out.name)
        return train(model, text, out, **options)

    monkeypatch.setattr(sweep_module, "train", counted)
    return names


def test_every_kind_is_trained_and_measured_from_one_cache_a_target(tmp_path: Path) -> None:
    kinds = ["transcoder", "skip-transcoder", "sae", "clt"]
    result = run(tmp_path / "out", GRID | {"kinds": kinds, "k": [4]}, cache=tmp_path / "cache")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["mlp_out", "resid_post"]
    assert [row.kind for row in result.rows] == kinds
    for row in result.rows:
        assert 0 < row.l0 <= 4 and row.fvu > 0 and row.seconds > 0
        assert (row.kl is None) == (row.ce is None) == (row.kind == "sae")
        assert row.target == ("resid_post" if row.kind == "sae" else "mlp_out")
    assert set(result.front) == {"mlp_out", "resid_post"}
    assert result.front["resid_post"] == {"fvu": ["run-sae-topk-f48-k4-s0"]}
    assert result.picture.read_text().count("<svg") == 1

    table = pq.read_table(result.table)
    assert table.column_names == [
        *("name", "kind", "activation", "features", "k", "sparsity", "learning_rate", "seed"),
        *("target", "fvu", "l0", "dead"),
        *("ce", "kl", "top1", "seconds", "seconds_share"),
    ]
    assert table["features"].to_pylist() == [48] * 4
    assert sum(table["seconds_share"].to_pylist()) == pytest.approx(1)


def test_what_is_finished_is_reused_and_what_was_stopped_resumed(
    tmp_path: Path, trained: list[str]
) -> None:
    class Stop(Exception):
        pass

    def stop(now: SweepProgress) -> None:
        if now.run == 2 and now.training and now.training.tokens > 256:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "a", on_progress=stop, checkpoint_seconds=0.0)
    first, second = trained
    seen: list[int] = []
    resumed = run(
        tmp_path / "a",
        on_progress=lambda now: seen.append(now.training.tokens if now.training else 0),
    )
    assert trained == [first, second, second]
    assert min(tokens for tokens in seen if tokens) > 256
    whole = run(tmp_path / "b")
    assert [(row.fvu, row.kl) for row in resumed.rows] == [(row.fvu, row.kl) for row in whole.rows]

    trained.clear()
    larger = run(tmp_path / "a", GRID | {"seeds": [0, 1]})
    assert [name[-2:] for name in trained] == ["s1", "s1"]
    assert len(larger.rows) == 4


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path) -> None:
    run(tmp_path, GRID | {"k": [2]})
    with pytest.raises(CheckpointError, match="holds a sweep made with other tokens"):
        run(tmp_path, GRID | {"k": [2]}, tokens=700)


def test_figures_that_cannot_be_trusted_are_taken_anew(
    tmp_path: Path, trained: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    first = run(tmp_path)
    one, two = (tmp_path / row.name for row in first.rows)
    trained.clear()

    def again(*words: str) -> None:
        caplog.clear()
        found = run(tmp_path)
        assert [(row.name, row.fvu, row.kl) for row in found.rows] == [
            (row.name, row.fvu, row.kl) for row in first.rows
        ]
        assert all(word in caplog.text for word in words)

    again()
    assert trained == [] and caplog.text == ""
    row = one.with_suffix(".json")
    whole = row.read_text(encoding="utf-8")
    row.write_text(whole.replace('"l0": 2', '"l0": 1'), encoding="utf-8")
    again(f"{row} is damaged (its checksum differs)")
    row.write_text("{", encoding="utf-8")
    again(f"{row} is not a row of a sweep")
    row.write_text(two.with_suffix(".json").read_text(encoding="utf-8"), encoding="utf-8")
    again(f"{row} is of other dictionaries than those in {one}")
    assert load_dictionaries(one).layers == [0, 1, 2]

    trained.clear()
    file = two / "layer_1.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 16
    file.write_bytes(content)
    again(f"{two.name}: moved to {two}.damaged and trained anew", "layer_1.safetensors")
    assert trained == [two.name]
    again()
    assert trained == [two.name]


def test_learning_rates_and_sparsities_are_settings_like_others(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        GRID
        | {
            "k": [4],
            "activations": ["topk", "relu"],
            "sparsities": [0.01, 3.0],
            "learning_rates": [None, 1e-3],
        },
        layers=[0],
    )
    table = pq.read_table(result.table)
    names = ["topk-f48-k4", "topk-f48-k4-rate0.001"]
    names += [f"relu-f48-k4-sparsity{x}{rate}" for x in (0.01, 3.0) for rate in ("", "-rate0.001")]
    assert table["name"].to_pylist() == [f"run-transcoder-{name}-s0" for name in names]
    assert table["sparsity"].to_pylist() == [None, None, 0.01, 0.01, 3.0, 3.0]
    assert table["learning_rate"].to_pylist() == [None, 1e-3] * 3
    few, many = result.rows[5].l0, result.rows[3].l0
    assert few < many
    found = points(result.rows, "mlp_out", "fvu")
    assert len(found) == 6 and all(len(point.names) == 1 for point in found)
    assert "relu F=48 rate=0.001" in result.picture.read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": []}, "k of the grid is empty; give at least one value"),
        ({"seeds": [1, 1]}, "seeds of the grid is 1, 1; name each value once"),
        ({"kinds": ["transcoder", "moe"]}, "unknown kind 'moe'"),
        ({"k": [4, 64]}, "k is 64 but there are only 48 features"),
        ({"sparsities": [0.1]}, "sparsities mean nothing to topk; leave them out, or add jumprelu"),
        ({"learning_rates": [0.0]}, "learning_rate is 0.0; give a positive number"),
    ],
)
def test_bad_grids_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Grid(**(GRID | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": [7]}, "layer 7 does not exist"),
        ({"tokens": 0}, "tokens is 0"),
        ({"picture": "plot.gif"}, "plot.gif ends in '.gif'"),
    ],
)
def test_options_are_checked_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        run(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
