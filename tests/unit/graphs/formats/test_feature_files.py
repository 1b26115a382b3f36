import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import CheckpointError, DataError
from pellucid.graphs.formats import feature_files
from pellucid.graphs.formats.feature_files import FeatureFiles, write_feature_files


def record(index: int, text: str = "a") -> dict[str, Any]:
    return {
        "transcoder_id": "tiny",
        "index": index,
        "examples_quantiles": [
            {
                "quantile_name": "Top Activations",
                "examples": [
                    {
                        "tokens": [text, " é", "\u2028"],
                        "tokens_acts_list": [0.0, 1.5, 0.25],
                        "train_token_ind": 1,
                        "is_repeated_datapoint": False,
                    }
                ],
            }
        ],
        "top_logits": ["x"],
        "bottom_logits": ["y"],
        "act_min": 0.0,
        "act_max": 1.5,
        "quantile_values": [0.1],
        "histogram": [1, 2],
        "activation_frequency": 0.01,
    }


def page_reads(folder: Path, layer: int, index: int) -> Any:
    """What circuit-tracer's page does, step by step: two range ends, a length, an inflate."""
    listing = json.loads(gzip.decompress((folder / "features" / "index.json.gz").read_bytes()))
    entry = listing[str(layer)]
    start, stop = entry["offsets"][index], entry["offsets"][index + 1]
    body = (folder / "features" / entry["filename"]).read_bytes()[start : stop + 1]  # inclusive
    length = body[0] | body[1] << 8 | body[2] << 16 | body[3] << 24
    return json.loads(zlib.decompress(body[4 : 4 + length], wbits=47))


@settings(max_examples=15)
@given(st.dictionaries(st.integers(0, 20), st.text(max_size=9), max_size=4), st.integers(0, 9))
def test_records_come_back_to_us_and_to_the_page(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[int, str], spare: int
) -> None:
    folder = tmp_path_factory.mktemp("features")
    layers = {
        layer: [record(index, text + str(layer)) for index, text in sorted(texts.items())]
        for layer in (0, 3)
    }
    count = max(texts, default=-1) + 1 + spare
    write_feature_files({k: iter(v) for k, v in layers.items()}, folder, features=count)
    found = FeatureFiles(folder)
    assert found.layers == [0, 3]
    for layer, records in layers.items():
        assert found.features(layer) == count
        assert list(found.records(layer)) == records
        for index in range(count):
            expected = next((r for r in records if r["index"] == index), None)
            assert found.read(layer, index) == expected
            if expected is not None:
                assert page_reads(folder, layer, index) == expected


def test_bytes_are_the_layout_and_the_same_every_time(tmp_path: Path) -> None:
    for name in "ab":
        write_feature_files({1: [record(2), record(5)]}, tmp_path / name)
    first, second = (sorted((tmp_path / name / "features").iterdir()) for name in "ab")
    assert [path.name for path in first] == ["index.json.gz", "layer_1.bin"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    body = first[1].read_bytes()
    (length,) = struct.unpack("<I", body[:4])
    assert json.loads(gzip.decompress(body[4 : 4 + length])) == record(2)
    offsets = json.loads(gzip.decompress(first[0].read_bytes()))["1"]["offsets"]
    assert offsets == [0, 0, 0, 4 + length, 4 + length, 4 + length, len(body)]


def test_zlib_records_are_read_too(tmp_path: Path) -> None:
    write_feature_files({0: [record(0)]}, tmp_path)
    data = zlib.compress(json.dumps(record(0)).encode())
    body = struct.pack("<I", len(data)) + data
    (tmp_path / "features" / "layer_0.bin").write_bytes(body)
    index = {"0": {"filename": "layer_0.bin", "offsets": [0, len(body)]}}
    (tmp_path / "features" / "index.json.gz").write_bytes(zlib.compress(json.dumps(index).encode()))
    assert FeatureFiles(tmp_path / "features").read(0, 0) == record(0)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(1), record(1)], "record 1 is out of order, repeated"),
        ([record(1), record(0)], "record 0 is out of order"),
        ([record(9)], "beyond the layer's last feature"),
        ([record(0) | {"index": -1}], "is negative"),
        ([record(0) | {"index": "0"}], "has index '0'"),
        ([record(0) | {"index": True}], "has index True"),
        ([{"index": 0}], "has examples_quantiles None"),
        ([record(0) | {"top_logits": "x"}], "has top_logits 'x'"),
        ([record(0) | {"act_max": None}], "has act_max None"),
        ([record(0) | {"other": object()}], "is not JSON"),
        (
            [record(0) | {"examples_quantiles": [{"examples": [{"tokens": ["a"]}]}]}],
            "one activation a token",
        ),
        ([record(0) | {"examples_quantiles": ["x"]}], "one activation a token"),
    ],
)
def test_bad_records_are_refused_and_nothing_is_written(
    records: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        write_feature_files({0: records}, tmp_path / "set", features=8)
    assert not (tmp_path / "set" / "features").exists()


def test_questions_beyond_the_files_are_refused(tmp_path: Path) -> None:
    write_feature_files({0: [record(0)]}, tmp_path)
    found = FeatureFiles(tmp_path)
    with pytest.raises(CheckpointError, match="no features of layer 4; it has layers"):
        found.read(4, 0)
    for index in (-1, 1):
        with pytest.raises(CheckpointError, match="lists 1 features of layer 0"):
            found.read(0, index)
    with pytest.raises(CheckpointError, match="is missing"):
        FeatureFiles(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "index",
    [
        [],
        {"a": {"filename": "layer_0.bin", "offsets": [0, 1]}},
        {"0": {"filename": "layer_0.bin"}},
        {"0": {"filename": "../layer_0.bin", "offsets": [0, 1]}},
        {"0": {"filename": "layer_0.bin", "offsets": [3, 1]}},
        {"0": {"filename": "layer_0.bin", "offsets": [-3, 1]}},
        {"0": {"filename": "layer_0.bin", "offsets": ["0", "1"]}},
        {"0": {"filename": "layer_0.bin", "offsets": []}},
        {"0": {"filename": "layer_0.bin", "offsets": 3}},
    ],
)
def test_a_hostile_index_is_one_clear_error(index: Any, tmp_path: Path) -> None:
    write_feature_files({0: [record(0)]}, tmp_path)
    (tmp_path / "features" / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    with pytest.raises(CheckpointError, match="is damaged"):
        FeatureFiles(tmp_path)


def test_damaged_and_unfolding_records_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_feature_files({0: [record(0), record(1)]}, tmp_path)
    found, path = FeatureFiles(tmp_path), tmp_path / "features" / "layer_0.bin"
    whole = path.read_bytes()
    for body in (b"", whole[:7], b"\xff" * len(whole), whole[:4] + b"x" * (len(whole) - 4)):
        path.write_bytes(body)
        with pytest.raises(CheckpointError, match=r"layer_0\.bin is damaged"):
            found.read(0, 0)
    path.write_bytes(whole)
    monkeypatch.setattr(feature_files, "MAX_RECORD", 300)
    with pytest.raises(CheckpointError, match="unfolds to more than 300 bytes"):
        found.read(0, 0)
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        found.read(0, 0)
