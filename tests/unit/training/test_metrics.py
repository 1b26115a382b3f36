"""Trailing figures and the metrics log."""

import json
from pathlib import Path

import pytest

from pellucid.harvest.fidelity import LayerFidelity
from pellucid.training.metrics import WINDOW_STEPS, MetricsLog, TrainProgress, Window
from pellucid.training.step import StepMetrics


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


def step(error: float, variance: float, *, l0: float = 4.0, dead: float = 0.0) -> StepMetrics:
    return StepMetrics(squared_error=error, variance=variance, l0=l0, dead=dead, auxiliary=0.0)


def test_a_window_weighs_steps_by_their_variance_and_forgets_old_ones() -> None:
    window = Window(2)
    for _ in range(WINDOW_STEPS):
        window.add(step(1e9, 1.0, dead=1.0))
    for number in range(WINDOW_STEPS):
        window.add(step(1.0, 1.0 if number % 2 else 9.0, l0=float(number % 2), dead=0.25))
    figures = window.figures()
    assert figures.fvu == pytest.approx(0.2)
    assert (figures.layer, figures.l0, figures.dead) == (2, 0.5, 0.25)


def progress(tokens: int) -> TrainProgress:
    figures = LayerFidelity(layer=0, fvu=0.5, l0=3.0, dead=0.1)
    return TrainProgress(
        tokens=tokens,
        total_tokens=100,
        tokens_per_second=10.0,
        seconds_left=1.0,
        layers=(figures,),
    )


def test_a_log_is_cut_back_to_the_checkpoint_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.truncate(50)
    for tokens in (10, 20, 30):
        log.append(progress(tokens))
    with path.open("a") as file:
        file.write('{"tokens": 5, "half a rec')
    log.truncate(20)
    log.append(progress(25))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["tokens"] for record in records] == [10, 20, 25]
    assert records[0] == {
        "tokens": 10,
        "tokens_per_second": 10.0,
        "layers": [{"layer": 0, "fvu": 0.5, "l0": 3.0, "dead": 0.1}],
        "crc32": records[0]["crc32"],
    }
    assert log.records()[0] == progress(10).to_json()


def test_any_flipped_bit_of_the_log_costs_its_record_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for tokens in (10, 20, 30):
        log.append(progress(tokens))
    written, records = path.read_bytes(), log.records()
    assert not caplog.records
    for place in range(len(written)):
        path.write_bytes(flipped(written, place))
        found = log.records()
        assert all(record in records for record in found)
        assert len(found) == 3 or "left out damaged lines of" in caplog.text
        caplog.clear()
    path.write_bytes(flipped(written, 10))
    log.truncate(20)
    assert log.records() == records[1:2]
