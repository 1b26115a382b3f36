"""The published chains of Circuit-based Reasoning Verification, JSON of `facebook/crv`.

Files such as `arithmetic_expressions/arith.nt5.annotated.json` hold a list of expressions:

    expression_id           a number or a string
    original_expression     the question
    step_expressions        a list of steps
        step_number         0 or 1 for the first
        step_content        the step
        step_label          true for a right step; left out where nobody has judged it
        assistant_content_before, assistant_content_after
                            what the assistant had written before and after the step
        formatted_assistant_content_before, formatted_assistant_content_after
                            the same with the question, in the model's chat form

What else there is (`correct_value`, `predicted_value`, `total_steps`) is left alone. The steps keep
the published boundaries: step k ends where its `after` ends. The chains are by Llama 3.1 8B
Instruct under CC BY-NC 4.0; none is packaged here. Source of the fields: the authors' repository
and public code that reads the files.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.core.errors import DataError
from pellucid.verification.chains.expressions import ARITHMETIC, BOOLEAN
from pellucid.verification.chains.free_text import read_label
from pellucid.verification.chains.kept import KeptChain, count_operators
from pellucid.verification.chains.text_chain import TextChain, TextStep, unread_chain

_HUB_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+\.json)")
_END_MARKS = ("<|eot_id|>", "<|end_of_text|>")
_TOKENS = re.compile(r"\d+|[()+*-]|and|or|not|true|false", re.IGNORECASE)
_BOUNDS = (
    ("formatted_assistant_content_before", "formatted_assistant_content_after"),
    ("assistant_content_before", "assistant_content_after"),
)


def read_published(source: str | Path) -> list[KeptChain]:
    """The chains of one published file; one whose steps do not fit together is kept, unread.

    Args:
        source: a local `.json` file, or one of the hub as `facebook/crv:folder/file.json`.

    Raises:
        DataError: the file cannot be found or read, or an entry lacks a field that it needs.
    """
    path = _find(source)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); fetch it again") from None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} holds no list of expressions; give a file of facebook/crv")
    stem = path.name.removesuffix(".json")
    return [_entry(entry, f"entry {n} of {path.name}", stem) for n, entry in enumerate(entries)]


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    match = _HUB_FILE.fullmatch(str(source))
    if match is None:
        raise DataError(
            f"there is no file {str(source)!r}; give a local .json file or one of the hub, such as "
            "facebook/crv:arithmetic_expressions/arith.nt5.annotated.json"
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(match["repo"], match["file"], repo_type="dataset"))
    except Exception as error:  # the client raises errors of four libraries
        raise DataError(
            f"the hub gives no file {match['file']!r} of {match['repo']} "
            f"({type(error).__name__}); check the name and the connection"
        ) from error


def _entry(entry: Any, where: str, source: str) -> KeptChain:
    name = _needed(entry, "expression_id", (str, int), where)
    question = _needed(entry, "original_expression", (str,), where)
    steps = _needed(entry, "step_expressions", (list,), where)
    for number, step in enumerate(steps):
        place = f"step {number} of {where}"
        _needed(step, "step_number", (int,), place)
        _needed(step, "step_content", (str,), place)
    ordered = sorted(steps, key=lambda step: step["step_number"])
    return KeptChain(
        id=f"{source}:{name}",
        source=source,
        language="text",
        group=question,
        operators=_operators(question),
        chain=_chain(question, ordered, where),
    )


def _needed(record: Any, name: str, kinds: tuple[type, ...], where: str) -> Any:
    if not isinstance(record, Mapping):
        raise DataError(f"{where} is a {type(record).__name__}; each must be a JSON object")
    if not isinstance(record.get(name), kinds) or isinstance(record[name], bool):
        raise DataError(
            f"{where} has no usable field {name!r} (it has {', '.join(map(str, record))}); give a "
            "file of facebook/crv or of its form"
        )
    return record[name]


def _chain(question: str, steps: Sequence[Mapping[str, Any]], where: str) -> TextChain:
    """The chain of one entry: from the contents before and after its steps, or from the steps."""
    if not steps:
        return unread_chain(question, "", "it has no steps")
    if len({step["step_number"] for step in steps}) < len(steps):
        return unread_chain(question, "", "two of its steps have one number")
    labels = [
        read_label(step.get("step_label"), f"step {step['step_number']} of {where}")
        for step in steps
    ]
    for before, after in _BOUNDS:
        if all(isinstance(step.get(name), str) for step in steps for name in (before, after)):
            bounds = [(_open(step[before]), _open(step[after])) for step in steps]
            prompt = bounds[0][0] if before.startswith("formatted") else f"{question}\n"
            begin = len(bounds[0][0]) if before.startswith("formatted") else 0
            return _with(labels, _bounded(prompt, begin, bounds))
    text, ranges = "", []
    for step in steps:
        ranges.append((len(text), len(text) + len(step["step_content"])))
        text += step["step_content"] + "\n"
    return _with(labels, _ranged(f"{question}\n", text, ranges))


def _with(labels: Sequence[bool | None], chain: TextChain) -> TextChain:
    return chain if chain.unread is not None else chain.labelled(labels)


def _open(text: str) -> str:
    """A conversation without the mark that closes it: the chain goes on after it."""
    for mark in _END_MARKS:
        text = text.removesuffix(mark)
    return text


def _bounded(prompt: str, begin: int, bounds: Sequence[tuple[str, str]]) -> TextChain:
    """The chain whose steps begin and end where these texts end."""
    whole = bounds[-1][1]
    text = whole[begin:]
    if not all(whole.startswith(part) for pair in bounds for part in pair):
        return unread_chain(prompt, text, "its contents do not continue each other")
    return _ranged(prompt, text, [(len(a) - begin, len(b) - begin) for a, b in bounds])


def _ranged(prompt: str, text: str, ranges: Sequence[tuple[int, int]]) -> TextChain:
    last = 0
    for start, stop in ranges:
        if not last <= start < stop:
            return unread_chain(prompt, text, "a step is empty or overlaps the one before it")
        last = stop
    steps = tuple(TextStep(number=n, start=a, stop=b) for n, (a, b) in enumerate(ranges))
    return TextChain(prompt=prompt, text=text, steps=steps)


def _operators(question: str) -> int:
    """Operators of an expression; 0 for a question in words."""
    tokens = [token.lower() for token in _TOKENS.findall(question)]
    if "".join(tokens) != re.sub(r"\s", "", question).lower():
        return 0
    return max(count_operators(language, tokens) for language in (ARITHMETIC, BOOLEAN))
