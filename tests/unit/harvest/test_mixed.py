"""Mixtures: the shares asked for, the same every time, from any document on."""

import logging
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.core.errors import ConfigError, DataError
from pellucid.harvest.mixed import MixedText
from pellucid.harvest.sources import open_text
from pellucid.harvest.text import TextList, TextSource

SHORT = TextList([f"s{number}" for number in range(300)], name="short")
LONG = TextList([f"l{number} " + "word " * 40 for number in range(100)], name="long")


@settings(max_examples=20)
@given(weights=st.lists(st.floats(0.05, 20), min_size=2, max_size=4), count=st.integers(50, 400))
def test_every_source_gives_its_share_of_the_characters(weights: list[float], count: int) -> None:
    """Within the longest document of any, at every moment, though documents differ in length."""
    texts = [
        TextList([f"{number}|" + "x" * (3 ** (number + 1)) for _ in range(30)], name=str(number))
        for number in range(len(weights))
    ]
    given_ = [0] * len(weights)
    for text in islice(MixedText(texts, weights).documents(), count):
        given_[int(text.partition("|")[0])] += len(text) + 1
        for each, weight in zip(given_, weights, strict=True):
            assert abs(each - weight / sum(weights) * sum(given_)) <= 2 * 3**4 + 6


@settings(max_examples=20)
@given(start=st.integers(0, 700))
def test_documents_are_found_again_from_any_number(start: int) -> None:
    mixture = MixedText([SHORT, LONG], [1, 3])
    again = list(islice(mixture.documents(start), 20))
    assert again == list(islice(mixture.documents(), start + 20))[start:]


def test_splits_are_mixtures_of_the_sources_splits() -> None:
    mixture = MixedText([SHORT, LONG], [1, 3])
    train, held_out = mixture.split("train"), mixture.split("heldout")
    seen = set(islice(train.documents(), 3_000))
    assert seen == {*SHORT.split("train").documents(), *LONG.split("train").documents()}
    assert not seen & set(islice(held_out.documents(), 300))
    assert len({mixture.fingerprint, train.fingerprint, held_out.fingerprint}) == 3


def test_the_fingerprint_follows_sources_and_shares() -> None:
    first = MixedText([SHORT, LONG], [1, 3]).fingerprint
    assert MixedText([SHORT, LONG], [2, 6]).fingerprint == first
    assert MixedText([SHORT, LONG], [1, 2]).fingerprint != first
    assert MixedText([LONG, SHORT], [1, 3]).fingerprint != first


def test_a_source_that_ends_is_read_again_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mixture = MixedText([TextList(["a", "b"], name="two"), LONG], [1, 1])
    with caplog.at_level(logging.WARNING):
        texts = list(islice(mixture.documents(), 500))
    assert [text for text in texts if len(text) == 1][:5] == ["a", "b", "a", "b", "a"]
    assert caplog.messages.count("the text of two is at its end: it is read again") == 1


def test_a_blank_source_is_refused_rather_than_read_for_ever() -> None:
    mixture = MixedText([TextList(["", " "], name="blank"), LONG], [1, 1])
    with pytest.raises(DataError, match="blank holds no text"):
        list(islice(mixture.documents(), 500))


def test_sources_and_weights_are_read_from_strings(tmp_path: Path) -> None:
    left, right, odd = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c=2"
    for path in (left, right):
        path.write_text("some text\n")
    odd.mkdir()
    (odd / "d.txt").write_text("more\n")

    def shares(*data: str | Path | TextSource) -> str:
        return open_text(list(data)).name

    assert shares(f"{left}=3", f"{right}=1") == f"{left}=0.75 + {right}=0.25"
    assert shares(str(left), right) == f"{left}=0.5 + {right}=0.5"
    assert shares(str(odd), f"{left}=.5") == f"{odd}=0.667 + {left}=0.333"
    assert shares(f"{odd}=4", "specimen=4") == f"{odd}=0.5 + specimen=0.5"
    assert shares(f"{left}=3") == str(left)


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf"])
def test_weights_that_are_no_shares_are_refused(weight: str) -> None:
    with pytest.raises(ConfigError, match=r"the weight of specimen is .*; give a positive number"):
        open_text([f"specimen={weight}", "specimen"])


def test_mixtures_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no text is given"):
        open_text([])
    with pytest.raises(ConfigError, match="1 sources and 1 weights"):
        MixedText([SHORT], [1])
