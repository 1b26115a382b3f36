import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import DataError
from pellucid.probes.groups import folds, split


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=4, max_size=60))
def test_no_group_is_ever_on_both_sides(rows) -> None:
    groups = [str(group) for group, _ in rows]
    labels = np.array([label for _, label in rows])
    try:
        parts = folds(labels, groups)
    except DataError:
        return
    tested = np.concatenate([test for _, test in parts])
    assert sorted(tested) == list(range(len(rows)))
    for train, test in parts:
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        for side in (train, test):
            assert set(labels[side]) == {True, False}


def test_folds_are_spread_evenly() -> None:
    labels = np.arange(400) % 4 == 0
    groups = [str(index // 10) for index in range(400)]
    sizes = [len(test) for _, test in folds(labels, groups, count=4)]
    assert max(sizes) - min(sizes) <= 20


def test_a_split_takes_about_its_share() -> None:
    labels = np.arange(400) % 2 == 0
    train, test = split(labels, [str(index // 8) for index in range(400)], test_share=0.25)
    assert 80 <= len(test) <= 120
    assert len(train) + len(test) == 400


def test_groups_that_are_the_labels_cannot_be_split() -> None:
    labels = np.array([True, True, False, False])
    with pytest.raises(DataError, match="2 groups cannot be split so that both classes"):
        folds(labels, ["yes", "yes", "no", "no"])


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([True, True], ["a", "b"], "2 of 2 examples are positive"),
        ([], [], "0 of 0 examples are positive"),
        ([True, False], ["a"], "1 groups for 2 rows"),
    ],
)
def test_bad_input_is_refused(labels, groups, message) -> None:
    with pytest.raises(DataError, match=message):
        folds(np.array(labels, dtype=bool), groups)
