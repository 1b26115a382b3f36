"""Counts, layers and ids as written on the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.cli.values import parse_count, parse_ids, parse_layers, parse_seed


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("65536", 65_536),
        ("65_536", 65_536),
        ("50,000", 50_000),
        ("500k", 500_000),
        ("500K", 500_000),
        ("2M", 2_000_000),
        ("1.5m", 1_500_000),
        ("0.25B", 250_000_000),
        (" 2M ", 2_000_000),
        (7, 7),
    ],
)
def test_counts(text: str | int, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "2T", "-5", "1e6", "0", "0.5", "1.5", "2 M", "two"])
def test_what_is_not_a_count_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="write") as caught:
        parse_count(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("3", [3]), ("0-3", [0, 1, 2, 3]), ("0,2,5-7", [0, 2, 5, 6, 7]), ("4, 1-2", [1, 2, 4])],
)
def test_layers(text: str, layers: list[int]) -> None:
    assert parse_layers(text) == layers


@given(st.sets(st.integers(0, 200), min_size=1))
def test_any_list_of_layers_comes_back_sorted(layers: set[int]) -> None:
    assert parse_layers(",".join(map(str, layers))) == sorted(layers)


@pytest.mark.parametrize("text", ["", "a", "3-", "-3", "3-1", "1,,2", "1.5", "0..3"])
def test_what_is_not_a_list_of_layers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_layers(text)


def test_seeds() -> None:
    assert [parse_seed("0"), parse_seed(" 12 "), parse_seed(3)] == [0, 12, 3]
    for text in ("-1", "1.5", "", "x"):
        with pytest.raises(ValueError, match="seed"):
            parse_seed(text)


def test_ids() -> None:
    assert parse_ids("1, 25,3") == [1, 25, 3]
    for text in ("", "1,", "-1", "a", "1 2"):
        with pytest.raises(ValueError, match="token ids"):
            parse_ids(text)
