"""The shipped copies: the specimen with one layer's update merged in."""

from pathlib import Path

from pellucid.core.errors import ModelError
from pellucid.verification.planted.rules import RULES

PREFIX = "planted-"
"""Of a copy's name, as in `specimen:planted-double-minus`."""
_WEIGHTS = Path(__file__).parent / "weights"


def planted_path(rule: str) -> Path:
    """The folder of a shipped copy; `introspection.organisms.packaged.become` merges it.

    Args:
        rule: its name, without `planted-`.

    Raises:
        ModelError: no such rule, or the package was installed without its copy.
    """
    if rule not in RULES:
        raise ModelError(
            f"there is no planted rule {rule!r}; use one of {', '.join(RULES)}, as in "
            f"'specimen:{PREFIX}double-minus'"
        )
    folder = _WEIGHTS / rule
    if not folder.is_dir():
        raise ModelError(
            f"this installation lacks the copy of the rule {rule!r} ({folder} is missing); install "
            "pellucid again from a complete wheel or checkout"
        )
    return folder


def packaged_rules(language: str) -> tuple[str, ...]:
    """The rules of a language whose copies this installation has, in the order of `RULES`.

    Args:
        language: arithmetic or boolean.
    """
    return tuple(
        name for name in RULES if RULES[name].language == language and (_WEIGHTS / name).is_dir()
    )
