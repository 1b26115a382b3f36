"""Quality measured during training, trackers, and the model card of a finished run."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.dictionaries import load_dictionaries
from pellucid.evaluation import evaluate
from pellucid.harvest.text import TextList
from pellucid.training.card import card_text, curves_picture, escaped
from pellucid.training.measure import Measurement
from pellucid.training.metrics import MetricsLog
from pellucid.training.recorder import curves
from pellucid.training.sites import LayerSites
from support.trackers import fake_tensorboard, fake_wandb
from support.word_text import word_documents
from unit.training.test_loop import MODEL, run, run_until, same_weights

EVERY = 1_000
MEASURED_AT = [1_024, 2_048, 2_944]  # steps of 128; the last is the end


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    run(out)
    return out


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("measured")
    run(out, measure_every=EVERY)
    return out


def records(out: Path) -> dict[int, dict[str, Any]]:
    """What was measured, by tokens."""
    found = MetricsLog(out / "metrics.jsonl").records()
    return {record["tokens"]: record["measured"] for record in found if "measured" in record}


def test_measuring_changes_no_weight(plain: Path, measured: Path) -> None:
    assert same_weights(plain, measured)
    assert list(records(measured)) == MEASURED_AT
    assert records(plain) == {}


def test_a_resumed_run_measures_the_same(tmp_path: Path, measured: Path) -> None:
    run_until(tmp_path, 1_500, measure_every=EVERY)
    run(tmp_path, resume=True, measure_every=EVERY)
    assert records(tmp_path) == records(measured)
    assert same_weights(tmp_path, measured)


def test_the_last_measurement_is_what_evaluation_finds(measured: Path) -> None:
    text = TextList(word_documents(100, longest=40))
    expected = evaluate(MODEL, load_dictionaries(measured), text, tokens=8_192, layerwise=False)
    found = records(measured)[MEASURED_AT[-1]]
    assert expected.replacement is not None
    whole = expected.replacement.all
    assert found["original_ce"] == pytest.approx(expected.original_ce)
    for name in ("ce", "kl", "top1"):
        assert found[name] == pytest.approx(getattr(whole, name), rel=1e-4), name
    for layer, figures in zip(expected.layers, found["layers"], strict=True):
        assert figures["fvu"] == pytest.approx(layer.fvu, rel=1e-4)
        assert figures["dead"] == layer.dead
        assert figures["dense"] == layer.dense


def test_an_sae_is_measured_without_predictions_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, kind="sae", measure_every=EVERY)
    assert caplog.text.count("do not stand in for MLPs") == 1
    found = records(tmp_path)
    assert list(found) == MEASURED_AT
    assert all(set(each) == {"layers"} for each in found.values())


def test_some_layers_are_replaced_alone_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path, layers=[0, 2], measure_every=EVERY)
    assert caplog.text.count("2 of 3 layers are trained") == 1
    assert [layer["layer"] for layer in records(tmp_path)[1_024]["layers"]] == [0, 2]
    assert records(tmp_path)[1_024]["kl"] > 0


def test_a_measurement_is_due_when_a_step_passes_a_multiple() -> None:
    sites = {layer: LayerSites(Site("mlp_in", layer), Site("mlp_out", layer)) for layer in range(3)}
    held_out = TextList(word_documents(100)).split("heldout")
    due = Measurement(MODEL, held_out, sites, every=300, tokens=10).due
    steps = [(n, n + 128) for n in range(0, 1_024, 128)]
    assert [after for before, after in steps if due(before, after, 1_024)] == [384, 640, 1_024]


def test_measuring_never_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="measure_every is 0"):
        run(tmp_path / "out", measure_every=0)


# Tracking.


def test_trackers_get_the_figures_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers, runs = fake_tensorboard(monkeypatch), fake_wandb(monkeypatch)
    run(tmp_path, measure_every=EVERY, track=("tensorboard", "wandb", "wandb"))
    (writer,), (sent,) = writers, runs
    assert writer.closed and sent.finished
    expected = [
        (curves(record), record["tokens"])
        for record in MetricsLog(tmp_path / "metrics.jsonl").records()
    ]
    assert sent.points == expected
    assert writer.points == [
        (name, value, tokens) for figures, tokens in expected for name, value in figures.items()
    ]
    names = {name for name, _, _ in writer.points}
    assert {"layer_2/fvu", "measured/kl", "measured/layer_0/dense", "tokens_per_second"} <= names
    assert writer.log_dir == str(tmp_path / "tensorboard")
    assert sent.settings["config"]["k"] == 4


def test_a_resumed_run_goes_on_with_the_same_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers, runs = fake_tensorboard(monkeypatch), fake_wandb(monkeypatch)
    track = {"track": ("tensorboard", "wandb"), "measure_every": 300}
    run_until(tmp_path, 1_600, **track)
    # The step after the last checkpoint was recorded, then the process died.
    recorded = MetricsLog(tmp_path / "metrics.jsonl").last_tokens()
    kept = max(int(path.name[-14:]) for path in (tmp_path / "checkpoints").iterdir())
    run(tmp_path, resume=True, **track)
    assert writers[0].purge_step is None
    assert writers[1].purge_step == kept + 1
    assert runs[0].settings["id"] == runs[1].settings["id"]
    steps = [step for sent in runs for _, step in sent.points]
    assert steps == sorted(set(steps))
    assert runs[1].points[0][1] > recorded
    remaining = [p for p in writers[0].points if p[2] < kept + 1] + writers[1].points
    assert len({(name, step) for name, _, step in remaining}) == len(remaining)
    assert sorted({step for _, _, step in remaining}) == steps


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_missing_package_is_an_error_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'pellucid\[{name}\]'"):
        run(tmp_path / "out", track=(name,))
    assert not (tmp_path / "out").exists()


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown tracker 'mlflow'; use one of tensorboard"):
        run(tmp_path / "out", track=("mlflow",))


def test_a_service_that_refuses_to_start_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wandb(monkeypatch)

    def refuse(**settings: Any) -> None:
        raise RuntimeError("no key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(ConfigError, match=r"did not start \(no key\).*WANDB_MODE=offline"):
        run(tmp_path, track=("wandb",))


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, plain: Path
) -> None:
    fake_tensorboard(monkeypatch)
    writer = sys.modules["torch.utils.tensorboard"].SummaryWriter

    def failing(**settings: Any) -> Any:
        made = writer(**settings)
        made.add_scalar = None
        return made

    monkeypatch.setattr(sys.modules["torch.utils.tensorboard"], "SummaryWriter", failing)
    with caplog.at_level(logging.WARNING):
        run(tmp_path, track=("tensorboard",))
    assert caplog.text.count("tracking with tensorboard failed and stops") == 1
    assert same_weights(tmp_path, plain)


# The model card.


def header(card: str) -> dict[str, Any]:
    """The metadata as the hub's own reader finds it."""
    return ModelCard(card).data.to_dict()


def test_a_finished_run_leaves_a_card_that_says_what_it_is(measured: Path) -> None:
    card = (measured / "README.md").read_text(encoding="utf-8")
    assert header(card)["library_name"] == "pellucid"
    assert "transcoder" in header(card)["tags"]
    manifest = json.loads((measured / "manifest.json").read_text())
    for layer in manifest["results"]["layers"]:
        assert f"{layer['fvu']:.4f}" in card
    assert f"KL {records(measured)[MEASURED_AT[-1]]['kl']:.4f}" in card
    assert "| k | 4 |" in card
    assert f'load_dictionaries("{measured.name}")' in card
    assert "curves.svg" in card
    assert "<svg" in (measured / "curves.svg").read_text(encoding="utf-8")
    load_dictionaries(measured)


def test_a_card_that_is_missing_is_written_when_a_finished_run_is_resumed(plain: Path) -> None:
    before = (plain / "README.md").read_text(encoding="utf-8")
    (plain / "README.md").unlink()
    run(plain, resume=True)
    assert (plain / "README.md").read_text(encoding="utf-8") == before


HOSTILE = "x\n---\n# <script>alert(1)</script> [a](javascript:b) `c` | *d*"


def test_user_text_cannot_become_markup_or_metadata(measured: Path) -> None:
    manifest = json.loads((measured / "manifest.json").read_text())
    card = card_text(HOSTILE, manifest, [], model=HOSTILE, data=HOSTILE)
    assert set(header(card)) == {"library_name", "tags"}
    body = card.split("---\n", 2)[2]
    fence = body.index("```python"), body.index("```\n", body.index("```python") + 3)
    assert "\n---\n" not in body
    outside = body[: fence[0]] + body[fence[1] :]
    assert "<script>" not in outside
    assert "[a]" not in outside
    assert "`c`" not in outside
    assert len(body[fence[0] : fence[1]].splitlines()) == 4


def test_names_of_the_hub_are_metadata_and_names_of_folders_are_not(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((measured / "manifest.json").read_text())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "model").mkdir(parents=True)
    card = card_text("a", manifest, [], model="openai-community/gpt2", data="owner/text:part")
    assert header(card)["base_model"] == "openai-community/gpt2"
    assert header(card)["datasets"] == ["owner/text"]
    local = card_text("a", manifest, [], model="runs/model", data="b.txt")
    assert "base_model" not in header(local)


def test_the_picture_of_a_long_run_has_few_points_and_ends_where_it_ends(measured: Path) -> None:
    first = MetricsLog(measured / "metrics.jsonl").records()[0]
    axes = curves_picture([first | {"tokens": n} for n in range(1, 30_001)]).axes
    assert [axis.get_title() for axis in axes] == ["FVU", "L0", "dead"]
    for axis in axes:
        assert len(axis.lines) == 3
        tokens = axis.lines[0].get_xdata()
        assert len(tokens) <= 501
        assert tokens[-1] == 30_000


def test_escaped_text_is_one_line() -> None:
    assert escaped("a\n b|c_d") == r"a b\|c\_d"
