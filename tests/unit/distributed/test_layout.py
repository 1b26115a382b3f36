"""Layouts: read, completed, refused; and how things in a row are shared out."""

import pytest

from pellucid.core.errors import ConfigError
from pellucid.distributed.layout import Layout, parse_layout
from pellucid.distributed.team import Team


@pytest.mark.parametrize(
    ("text", "world", "layout"),
    [
        ("", 1, Layout()),
        ("", 8, Layout(data=8)),
        ("features=4", 8, Layout(data=2, features=4)),
        ("layers=2, features=2,data=2", 8, Layout(data=2, layers=2, features=2)),
    ],
)
def test_what_is_left_goes_to_data(text: str, world: int, layout: Layout) -> None:
    assert parse_layout(text, world) == layout
    assert parse_layout(str(layout), world) == layout


@pytest.mark.parametrize(
    ("text", "world", "message"),
    [
        ("tensor=2", 2, "layout 'tensor=2' cannot be read at 'tensor=2'; write it like data=2"),
        ("data=2,data=2", 4, "cannot be read at 'data=2'"),
        ("features=0", 2, "cannot be read at 'features=0'"),
        ("features=4", 6, r"data=1,layers=1,features=4 takes 4 processes but there are 6; start "),
        ("features=2", 1, r"takes 2 processes but there are 1; start torchrun with 2, or give"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(text: str, world: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_layout(text, world)


@pytest.mark.parametrize("total", [0, 1, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_follow_each_other_and_differ_by_one_at_most(total: int, size: int) -> None:
    shares = [Team(size, rank).share(total) for rank in range(size)]
    assert [i for share in shares for i in range(total)[share]] == list(range(total))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1
