"""How the command line says interventions: a file, or a few flags."""

import json
import re
from pathlib import Path
from typing import Any

from pellucid.core.errors import ConfigError
from pellucid.core.places import FeatureSite, parse_place
from pellucid.interventions.operations import Add, Clamp, Operation, ProjectOut, Scale, Set
from pellucid.interventions.spec import Intervention, read_interventions
from pellucid.interventions.where import EVERYWHERE, Where

_CLAMP = re.compile(r"(\d+):(\d+)=(\S+)")
_FEATURE = re.compile(r"(\d+):(\d+)")
_WINDOW = re.compile(r"(-?\d+):(-?\d+)?")
_WHOLE = re.compile(r"-?\d+")


def read_file(path: Path) -> list[Intervention]:
    """The interventions of a JSON file.

    Raises:
        ConfigError: the file cannot be read.
        InterventionError: what it says is no list of interventions.
        SiteError: a site cannot be read.
    """
    return read_interventions(_text("--file", path))


def features(
    clamps: list[str] | None, ablated: list[str] | None, where: Where
) -> list[Intervention]:
    """The interventions of `--clamp LAYER:FEATURE=VALUE` and `--ablate LAYER:FEATURE`.

    Args:
        clamps: values of `--clamp`.
        ablated: values of `--ablate`.
        where: which tokens.

    Raises:
        ConfigError: a value cannot be read.
    """
    found = []
    for text in clamps or []:
        match = _CLAMP.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"--clamp {text!r} cannot be read; write LAYER:FEATURE=VALUE, as in 2:137=4.5"
            )
        value = _number("--clamp", match[3])
        found.append(Intervention(FeatureSite(int(match[1]), int(match[2])), Clamp(value), where))
    for text in ablated or []:
        match = _FEATURE.fullmatch(text)
        if match is None:
            raise ConfigError(f"--ablate {text!r} cannot be read; write LAYER:FEATURE, as in 2:137")
        found.append(Intervention(FeatureSite(int(match[1]), int(match[2])), Clamp(0.0), where))
    return found


def at_site(
    site: str | None,
    operations: dict[str, str | None],
    strength: float,
    where: Where,
) -> list[Intervention]:
    """The intervention of `--at SITE` and one operation; none without `--at`.

    Args:
        site: value of `--at`.
        operations: the operations' flags with their values, None where not given.
        strength: factor of `--add`.
        where: which tokens.

    Raises:
        ConfigError: no operation, or several, or one that cannot be read.
        SiteError: the site cannot be read.
    """
    given = {flag: value for flag, value in operations.items() if value is not None}
    if site is None:
        if given:
            raise ConfigError(f"{next(iter(given))} needs a place; name it with --at")
        return []
    if len(given) != 1:
        raise ConfigError(
            f"--at {site} has {len(given)} operations ({', '.join(given) or 'none'}); give one of "
            f"{', '.join(operations)}"
        )
    ((flag, value),) = given.items()
    return [Intervention(parse_place(site), _operation(flag, value, strength), where)]


def parse_where(text: str | None) -> Where:
    """Which tokens: clauses separated by commas, or a JSON object.

    Args:
        text: `prompt`, `generated`, positions such as `3` or `-1`, windows such as `2:5` or `2:`,
            texts such as `text=dallas`; None for every token but the opening special one.

    Raises:
        ConfigError: a clause cannot be read.
        InterventionError: the clauses are malformed.
    """
    if text is None:
        return EVERYWHERE
    if text.lstrip().startswith("{"):
        return Where.from_json(_json("--where", text))
    clauses: dict[str, Any] = {"positions": [], "windows": [], "spans": []}
    for clause in (part.strip() for part in text.split(",")):
        if clause == "prompt":
            clauses["prompt"] = True
        elif clause == "generated":
            clauses["generated"] = (0, None)
        elif clause.startswith("text="):
            clauses["spans"].append(clause.removeprefix("text="))
        elif _WHOLE.fullmatch(clause):
            clauses["positions"].append(int(clause))
        elif (match := _WINDOW.fullmatch(clause)) is not None:
            stop = None if match[2] is None else int(match[2])
            clauses["windows"].append((int(match[1]), stop))
        else:
            raise ConfigError(
                f"--where has {clause!r}; write prompt, generated, a position such as -1, a window "
                "such as 2:5, or text=WORDS"
            )
    return Where(**clauses)


def edits_prompt(intervention: Intervention) -> bool:
    """Whether an intervention names more than generated tokens."""
    where = intervention.where
    return where.generated is None or bool(
        where.positions or where.windows or where.spans or where.prompt
    )


def _operation(flag: str, value: str, strength: float) -> Operation:
    if flag == "--add":
        return Add(_vector(flag, value), strength)
    if flag == "--project-out":
        return ProjectOut(_vector(flag, value))
    number = _number(flag, value)
    return Scale(number) if flag == "--scale" else Set(number)


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{flag} has {text!r}; give a number") from None


def _vector(flag: str, path: str) -> Any:
    """A JSON file with a list of numbers (or of such lists)."""
    return _json(flag, _text(flag, Path(path)))


def _json(flag: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{flag} is not valid JSON ({error})") from None


def _text(flag: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path} cannot be read ({error}); check the path") from None
