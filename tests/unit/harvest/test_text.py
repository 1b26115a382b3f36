"""Text sources: numbering, splits, and every way a source can be bad."""

import json
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import ConfigError, DataError
from pellucid.harvest.files import TXT_DOCUMENT_BYTES, FileText
from pellucid.harvest.hub import DatasetText
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import HELD_OUT_EVERY, SpecimenText, TextList


def test_every_file_type_gives_its_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one line\nanother\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "uno"}\n\n{"text": "dos"}\n', encoding="utf-8")
    pq.write_table(pa.table({"text": ["eins", None, "zwei"]}), tmp_path / "c.parquet")
    (tmp_path / "ignored.md").write_text("not text for us")
    documents = list(FileText(tmp_path).documents())
    assert documents == ["one line\nanother\n", "uno", "dos", "eins", "", "zwei"]


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.txt", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert list(FileText(tmp_path).documents()) == ["a/1.txt", "b/2.txt", "c.txt"]


def test_a_long_txt_file_is_cut_at_line_ends_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    text = "".join(f"línea {number} of a long file\n" for number in range(5_000))
    path.write_text("\ufeff" + text, encoding="utf-8")
    documents = list(FileText(path).documents())
    assert len(documents) > 3
    assert "".join(documents) == text
    assert all(document.endswith("\n") for document in documents)
    assert all(len(document.encode()) < TXT_DOCUMENT_BYTES + 100 for document in documents)


def test_another_field_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"body": "hello"}\n', encoding="utf-8")
    assert list(open_text(path, field="body").documents()) == ["hello"]


@given(start=st.integers(0, 130), size=st.integers(1, 130))
def test_splits_partition_the_documents_whatever_the_start(start: int, size: int) -> None:
    texts = [f"document {number}" for number in range(size)]
    source = TextList(texts)
    train, held_out = source.split("train"), source.split("heldout")
    if size < HELD_OUT_EVERY:
        assert train is held_out is source
        return
    train_texts, held_out_texts = list(train.documents()), list(held_out.documents())
    assert held_out_texts == texts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    assert sorted(train_texts + held_out_texts) == sorted(texts)
    assert list(train.documents(start)) == train_texts[start:]
    assert list(held_out.documents(start)) == held_out_texts[start:]
    assert train.fingerprint != held_out.fingerprint


def test_the_specimen_is_random_access_and_its_splits_differ() -> None:
    source = open_text("specimen", seed=3)
    train = source.split("train")
    assert list(islice(train.documents(7), 5)) == list(islice(train.documents(), 12))[7:]
    held_out = set(islice(source.split("heldout").documents(), 50))
    assert list(held_out - set(islice(train.documents(), 50)))
    assert SpecimenText(seed=4).fingerprint != train.fingerprint


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("same size A", encoding="utf-8")
    first = FileText(path).fingerprint
    assert FileText(path).fingerprint == first
    path.write_text("same size B", encoding="utf-8")
    assert FileText(path).fingerprint != first
    assert TextList(["ab", "c"]).fingerprint != TextList(["a", "bc"]).fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"abc\xff\xfedef", r"not UTF-8: byte 0xff at offset 3"),
        ("a.txt", b"cut \xe2\x82", r"not UTF-8: byte 0xe2 at offset 4"),
        ("a.jsonl", b'{"text": "x"}\n'[:-4], "line 1 of .* is not JSON"),
        ("a.jsonl", b'{"body": "x"}\n', r"line 1 of .* no text field 'text' \(it has 'body'\)"),
        ("a.jsonl", b'{"text": 3}\n', "no text field"),
        ("a.jsonl", b"[1]\n", "it has list"),
        ("a.parquet", b"PAR1 but no more", "cannot be read as Parquet"),
        ("a.csv", b"text\nhello\n", "unknown type '.csv'"),
    ],
)
def test_a_bad_file_is_refused_when_it_is_opened(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        FileText(path)


def test_bytes_that_are_not_utf8_are_found_beyond_the_first_block(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    offset = (1 << 20) - 1
    path.write_bytes(b"x" * offset + "é".encode() + b"\n\x80")
    with pytest.raises(DataError, match=f"byte 0x80 at offset {offset + 3}"):
        FileText(path)


def test_a_bad_line_further_on_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"text": null}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        list(FileText(path).documents())


def test_parquet_without_a_text_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2], "body": ["a", "b"]}), path)
    with pytest.raises(DataError, match=r"no text column 'text' \(it has text, body\)"):
        FileText(path)
    assert list(FileText(path, field="body").documents()) == ["a", "b"]


def test_missing_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file or folder '.*gone\.txt'"):
        open_text(str(tmp_path / "gone.txt"))
    for name in (f"{tmp_path}/no such folder", "no_such_folder"):
        with pytest.raises(DataError, match=r"no file or folder .* dataset of the hub as owner/n"):
            open_text(name)
    with pytest.raises(DataError, match=r"holds no \.txt"):
        open_text(tmp_path)


def test_bad_lists_and_splits_are_refused() -> None:
    with pytest.raises(DataError, match="no documents"):
        TextList([])
    with pytest.raises(DataError, match=r"document 1 .* is a int"):
        TextList(["a", 1])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="unknown split 'test'"):
        TextList(["a"]).split("test")  # type: ignore[arg-type]


class FakeStream:
    """What `datasets` returns when streaming, from rows in memory."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)

    def skip(self, count: int) -> "FakeStream":
        return FakeStream(self.rows[count:])


def test_a_dataset_is_streamed_from_any_document(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, object]] = [{"text": f"row {number}"} for number in range(6)]
    asked: list[object] = []

    def load_dataset(*args: object, **kwargs: object) -> FakeStream:
        asked.append((args, kwargs))
        return FakeStream(rows)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    source = open_text("owner/name:small")
    assert asked == [(("owner/name", "small"), {"split": "train", "streaming": True})]
    assert list(source.documents(4)) == ["row 4", "row 5"]
    rows[3] = {"body": "x"}
    with pytest.raises(DataError, match=r"no text column 'text' \(it has body\)"):
        list(source.documents())


def test_an_unreachable_dataset_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: object, **kwargs: object) -> FakeStream:
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"'owner/name' .*no route to host\); check the name"):
        DatasetText("owner/name")


def test_json_text_may_hold_any_unicode(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    text = "naïve\u2028line \U0001f600"
    path.write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(FileText(path).documents()) == [text]
