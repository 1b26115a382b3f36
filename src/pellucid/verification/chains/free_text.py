"""Chains in free text from files, GSM8K style: a prompt, what was written, and maybe labels."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.core.errors import DataError
from pellucid.verification.chains.cutting import cut
from pellucid.verification.chains.file_rows import read_rows
from pellucid.verification.chains.kept import KeptChain
from pellucid.verification.chains.text_chain import TextChain, TextStep, unread_chain

RIGHT = {"right": True, "correct": True, "true": True, "+": True, "1": True}
WRONG = {"wrong": False, "incorrect": False, "false": False, "-": False, "0": False}
UNKNOWN = {"unknown": None, "": None, "none": None, "null": None}
_LABELS: Mapping[str, bool | None] = {**RIGHT, **WRONG, **UNKNOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The names of what a row holds.

    Attributes:
        prompt: what the model was shown.
        text: what it wrote.
        labels: a list with one label a step; rows without it are unlabelled.
        id: of the chain; its number in the file where a row has none.
        group: what never is in training and in test; the prompt where a row has none.
    """

    prompt: str = "prompt"
    text: str = "answer"
    labels: str = "labels"
    id: str = "id"
    group: str = "group"


def read_label(value: Any, where: str) -> bool | None:
    """Whether a step is right: a truth value, or a word such as right, wrong or unknown.

    Args:
        value: as it stands in a file.
        where: it stands, for the message.

    Raises:
        DataError: it is none of these.
    """
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if not isinstance(value, str | int) or word not in _LABELS:
        raise DataError(f"{where} has the label {value!r}; write right, wrong or unknown")
    return _LABELS[word]


def read_text_chains(
    path: Path,
    *,
    rule: str = "lines",
    skip: str | None = None,
    fields: Fields | None = None,
    prompt_form: str = "{prompt}",
) -> list[KeptChain]:
    """The chains of a `.jsonl` or `.parquet` file; one that has no step is kept with the reason.

    Args:
        path: of the file.
        rule: how chains are cut into steps, see `cutting.separator`.
        skip: pieces that are no steps, see `cutting.cut`.
        fields: the names of what rows hold.
        prompt_form: how the model is to be shown the prompt; `{prompt}` stands for it.

    Raises:
        DataError: the file is missing, unreadable, empty, or a row lacks its prompt or text, or
            has labels that do not fit its steps.
        ConfigError: the rule cannot be used.
    """
    names = fields or Fields()
    kept = [
        _chain(row, where, number, names, path.stem, rule, skip, prompt_form)
        for number, (where, row) in enumerate(read_rows(path))
    ]
    if not kept:
        raise DataError(f"{path} holds no chains; give a file with at least one row")
    if repeated := [name for name, n in Counter(each.id for each in kept).items() if n > 1]:
        raise DataError(f"{path} has several chains with the id {repeated[0]!r}; make ids unique")
    return kept


def _chain(
    row: Mapping[str, Any],
    where: str,
    number: int,
    fields: Fields,
    source: str,
    rule: str,
    skip: str | None,
    prompt_form: str,
) -> KeptChain:
    for name in (fields.prompt, fields.text):
        if not isinstance(row.get(name), str):
            raise DataError(
                f"{where} has no text field {name!r} (it has {', '.join(map(str, row))}); name "
                "the fields of the prompt and of the chain"
            )
    prompt, text = prompt_form.replace("{prompt}", row[fields.prompt]), row[fields.text]
    ranges = cut(text, rule, skip=skip)
    if not ranges:
        chain = unread_chain(prompt, text, f"the rule {rule!r} finds no step in it")
    else:
        steps = tuple(TextStep(number=n, start=a, stop=b) for n, (a, b) in enumerate(ranges))
        chain = TextChain(prompt=prompt, text=text, steps=steps)
        chain = _labelled(chain, row.get(fields.labels), where)
    return KeptChain(
        id=str(row[fields.id]) if row.get(fields.id) is not None else f"{source}-{number}",
        source=source,
        language="text",
        group=str(row.get(fields.group) or row[fields.prompt]),
        operators=0,
        chain=chain,
    )


def _labelled(chain: TextChain, labels: Any, where: str) -> TextChain:
    if labels is None:
        return chain
    if not isinstance(labels, Sequence) or isinstance(labels, str):
        raise DataError(f"{where} has the labels {labels!r}; write a list with one label a step")
    if len(labels) != len(chain.steps):
        raise DataError(
            f"{where} has {len(labels)} labels for {len(chain.steps)} steps; cut the text by the "
            "rule that the labels were made for"
        )
    return chain.labelled([read_label(each, where) for each in labels])


def read_labels(path: Path) -> dict[tuple[str, int], bool | None]:
    """Labels of a file of their own: rows of `id`, `step` (0 for the first) and `label`.

    Raises:
        DataError: the file or a row of it cannot be read, or a step is labelled twice.
    """
    labels: dict[tuple[str, int], bool | None] = {}
    for where, row in read_rows(path):
        if missing := [name for name in ("id", "step", "label") if name not in row]:
            raise DataError(f"{where} has no {missing[0]!r}; a label is an id, a step and a label")
        if not isinstance(row["step"], int) or isinstance(row["step"], bool) or row["step"] < 0:
            raise DataError(
                f"{where} has the step {row['step']!r}; write a number, 0 for the first"
            )
        key = str(row["id"]), row["step"]
        if key in labels:
            raise DataError(f"{where} labels step {key[1]} of {key[0]!r} again; label it once")
        labels[key] = read_label(row["label"], where)
    return labels


def with_labels(
    chains: Sequence[KeptChain], labels: Mapping[tuple[str, int], bool | None]
) -> list[KeptChain]:
    """The chains with their steps labelled; steps that no label names keep what they had.

    Args:
        chains: in free text.
        labels: (id of the chain, number of the step) -> whether the step is right.

    Raises:
        DataError: a label names a step that no chain has.
    """
    steps = {(each.id, step.number) for each, text in _texts(chains) for step in text.steps}
    if strange := sorted(set(labels) - steps):
        raise DataError(
            f"a label names step {strange[0][1]} of {strange[0][0]!r}, which is not there "
            f"({len(strange)} such labels); give the labels of these chains"
        )
    named = {
        each.id: text.labelled([labels.get((each.id, s.number), s.right) for s in text.steps])
        for each, text in _texts(chains)
    }
    return [each.with_chain(named[each.id]) if each.id in named else each for each in chains]


def _texts(chains: Sequence[KeptChain]) -> Iterator[tuple[KeptChain, TextChain]]:
    return ((each, each.chain) for each in chains if isinstance(each.chain, TextChain))
