"""Text cut into steps: nothing is lost, nothing twice."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.core.errors import ConfigError
from pellucid.verification.chains.cutting import CUTS, cut

_texts = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            ["Step 1: ", "2) ", "so 3.5 + 1 = 4.5.", " ", "\n", "\n \n", "! ", "a", "\u2028", "."]
        ),
        max_size=20,
    ).map("".join),
)


@given(_texts, st.sampled_from(list(CUTS)))
def test_steps_and_separators_give_the_text_back(text: str, rule: str) -> None:
    parts, last = [], 0
    for start, stop in cut(text, rule):
        assert last <= start < stop
        between, step = text[last:start], text[start:stop]
        assert between.strip() == "" and step == step.strip()
        parts += [between, step]
        last = stop
    assert text[last:].strip() == ""
    assert "".join(parts) + text[last:] == text


@given(_texts, st.sampled_from([r"\n", "a", "(?=a)", r"\s+", "x*", r"a+|\."]))
def test_a_pattern_of_ones_own_loses_only_what_it_matches(text: str, pattern: str) -> None:
    ranges = cut(text, f"pattern:{pattern}")
    assert ranges == sorted(ranges)
    assert all(a < b for a, b in ranges)
    assert all(one[1] <= two[0] for one, two in pairwise(ranges))


@pytest.mark.parametrize(
    ("rule", "text", "steps"),
    [
        ("lines", "a b\n\n  c \n", ["a b", "c"]),
        ("paragraphs", "a\nb\n \nc", ["a\nb", "c"]),
        ("sentences", "He has 3.5 kg. So 7! Why?\nx", ["He has 3.5 kg.", "So 7!", "Why?", "x"]),
        ("numbered", "First.\nStep 1: a\nb\nstep 2. c\n3) d", None),
        ("pattern:;", "a;b ; c", ["a", "b", "c"]),
    ],
)
def test_rules(rule: str, text: str, steps: list[str] | None) -> None:
    expected = steps or ["First.", "Step 1: a\nb", "step 2. c", "3) d"]
    assert [text[a:b] for a, b in cut(text, rule)] == expected


def test_pieces_can_be_left_out() -> None:
    text = "3 + 4 = 7\n#### 7"
    assert [text[a:b] for a, b in cut(text, "lines", skip="####.*")] == ["3 + 4 = 7"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [("words", "unknown way to cut a text 'words'"), ("pattern:(", "is no regular expression")],
)
def test_unusable_rules(rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cut("a", rule)
