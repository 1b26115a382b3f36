"""The kind of operation is read off the texts."""

import pytest

from pellucid.verification.repair.kinds import kind_of


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("( ( 3 + 4 ) * 2 )", "( 7 * 2 )", "+2"),
        ("( ( 3 + 4 ) * 2 )", "( 9 * 2 )", "+2"),
        ("( ( - 8 ) * 2 )", "( -8 * 2 )", "-1"),
        ("( 3 - 8 )", "-5", "-2"),
        ("( ( 7 + 0 ) * 2 )", "( 7 * 2 )", "+2"),  # the value repeats an operand
        ("( 2 * ( 0 + 7 ) )", "( 2 * 7 )", "+2"),
        ("( not true )", "false", "not1"),
        ("( ( true xor true ) and false )", "( false and false )", "xor2"),
        ("( ( 1 + 2 ) * ( 3 + 4 ) )", "( 3 * 7 )", ""),
        ("( 1 + 2 )", "( 1 + 2 )", "+2"),
        ("", "3", ""),
        ("7", "7", ""),
    ],
)
def test_kind_of(before: str, after: str, kind: str) -> None:
    assert kind_of(before.split(), after.split()) == kind
