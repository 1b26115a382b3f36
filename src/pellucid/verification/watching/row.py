"""A step that is being watched as a table of one row, as a verifier reads it."""

from collections.abc import Mapping, Sequence

import numpy as np

from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.kept import count_operators
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.watching.segments import Segment


def as_steps(segment: Segment, readings: Sequence[Mapping[str, float]], language: str) -> StepSet:
    """One row for each reading of a step. Its labels are unknown and say right.

    Args:
        segment: the step.
        readings: columns of each row.
        language: of the chain.
    """
    place, count = segment.place, len(readings)
    labels: dict[str, object] = {
        "wrong": False,
        "wrong_so_far": False,
        "first_error": False,
        "error": "",
        "group": segment.question,
        "source": "watched",
        "language": language,
        "chain": 0,
        "number": segment.number,
        "operators": _operators(segment.question, language),
        "remaining": _operators(segment.before, language),
        "start": place.start,
        "tokens": place.stop - place.start,
        "text": segment.text,
        "before": segment.before,
        "weight": 1.0,
    }
    columns = {name: np.array([value] * count) for name, value in labels.items()}
    for name in readings[0]:
        columns[name] = np.array([each[name] for each in readings], dtype=np.float64)
    return StepSet(columns=columns)


def _operators(text: str, language: str) -> int:
    return count_operators(LANGUAGES[language], text.split()) if language in LANGUAGES else 0
