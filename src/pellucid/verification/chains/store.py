"""Data sets of chains on disk: one Parquet file and a manifest, read back as they were.

One row a chain. Chains that could not be read are rows like the others, with the reason. A chain of
a model has token ids, the question's tokens and steps whose `start` and `stop` count tokens after
the special first one; a chain in free text has `prompt` and `text`, and its steps count characters
of the text. Every step has `first_error` and `after_error`, so that steps after the first wrong one
can be left out or kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.core.errors import DataError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import Manifest, read_manifest
from pellucid.verification.chains.kept import KeptChain, summary
from pellucid.verification.chains.steps import Chain, Step
from pellucid.verification.chains.text_chain import TextChain, TextStep
from pellucid.verification.chains.writing import WrittenChain

KIND = "chains"
FILE = "chains.parquet"
_TEXT = "text"


def save_chains(
    folder: Path,
    chains: Sequence[KeptChain],
    *,
    record: Mapping[str, Any] | None = None,
    seed: int | None = None,
    parents: Mapping[str, str] | None = None,
) -> Manifest:
    """Write a data set of chains; its manifest says what could not be read and why.

    Args:
        folder: to write, whole or not at all.
        chains: with ids of their own.
        record: how they were made (JSON-able).
        seed: that they were made with.
        parents: name -> hash of what they were made from.

    Raises:
        DataError: there are none, or two have one id.
        StorageError: the disk refuses.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not chains:
        raise DataError("there are no chains to save; write or import some")
    if len({each.id for each in chains}) < len(chains):
        raise DataError("two chains have one id; give every chain an id of its own")
    manifest = Manifest(
        kind=KIND,
        config=dict(record or {}),
        seed=seed,
        parents=dict(parents or {}),
        results=summary(chains),
    )
    with atomic_directory(folder) as temporary:
        table = pa.Table.from_pylist([_row(each) for each in chains], schema=_schema())
        pq.write_table(table, temporary / FILE)
        manifest.write(temporary, [FILE])
    return manifest


def load_chains(folder: Path, *, strict: bool = False) -> list[KeptChain]:
    """Read a data set of chains.

    Args:
        folder: written by `save_chains`.
        strict: cut every chain after its first wrong step (the published setting).

    Raises:
        CheckpointError: it is missing, damaged or of another kind.
        DataError: the file is of another form.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    read_manifest(folder, kind=KIND)
    try:
        rows = pq.read_table(Path(folder) / FILE, schema=_schema()).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder}/{FILE} cannot be read ({error}); save it again") from error
    kept = [_kept(row) for row in rows]
    return [each.until_error() for each in kept] if strict else kept


def _schema() -> Any:
    import pyarrow as pa

    step = pa.struct(
        [
            ("number", pa.int32()),
            ("start", pa.int32()),
            ("stop", pa.int32()),
            ("tokens", pa.list_(pa.string())),
            ("local", pa.bool_()),
            ("whole", pa.bool_()),
            ("first_error", pa.bool_()),
            ("after_error", pa.bool_()),
            ("error", pa.string()),
        ]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("language", pa.string()),
            ("group", pa.string()),
            ("operators", pa.int32()),
            ("unread", pa.string()),
            ("form", pa.string()),
            ("ids", pa.list_(pa.int32())),
            ("prompt_length", pa.int32()),
            ("question", pa.list_(pa.string())),
            ("finished", pa.bool_()),
            ("prompt", pa.string()),
            ("text", pa.string()),
            ("steps", pa.list_(step)),
        ]
    )


def _row(kept: KeptChain) -> dict[str, Any]:
    names = ("id", "source", "language", "group", "operators", "unread")
    row = {name: getattr(kept, name) for name in names}
    labels = kept.labels()
    first = labels.index(False) if False in labels else len(labels)
    if isinstance(kept.chain, TextChain):
        row |= {"form": _TEXT, "prompt": kept.chain.prompt, "text": kept.chain.text}
        steps = [
            {"number": s.number, "start": s.start, "stop": s.stop, "local": s.right}
            for s in kept.chain.steps
        ]
    else:
        row |= {"form": "tokens", "ids": kept.chain.ids, "prompt_length": kept.chain.prompt_length}
        steps = []
        if (read := kept.chain.chain) is not None:
            row |= {"question": read.question, "finished": read.finished}
            steps = [_step(step) for step in read.steps]
    marks = [
        {"first_error": number == first, "after_error": number > first}
        for number in range(len(steps))
    ]
    row["steps"] = [step | mark for step, mark in zip(steps, marks, strict=True)]
    return row


def _step(step: Step) -> dict[str, Any]:
    names = ("number", "start", "stop", "local", "whole", "error")
    return {name: getattr(step, name) for name in names} | {"tokens": list(step.expression)}


def _kept(row: Mapping[str, Any]) -> KeptChain:
    chain = _text_chain(row) if row["form"] == _TEXT else _written(row)
    names = ("id", "source", "language", "group", "operators")
    return KeptChain(chain=chain, **{name: row[name] for name in names})


def _text_chain(row: Mapping[str, Any]) -> TextChain:
    steps = tuple(
        TextStep(number=s["number"], start=s["start"], stop=s["stop"], right=s["local"])
        for s in row["steps"]
    )
    return TextChain(prompt=row["prompt"], text=row["text"], steps=steps, unread=row["unread"])


def _written(row: Mapping[str, Any]) -> WrittenChain:
    chain = None
    if row["question"] is not None:
        names = ("number", "start", "stop", "local", "whole", "first_error", "error")
        steps = tuple(
            Step(expression=tuple(s["tokens"]), **{name: s[name] for name in names})
            for s in row["steps"]
        )
        chain = Chain(tuple(row["question"]), steps, row["finished"])
    return WrittenChain(
        ids=tuple(row["ids"]),
        prompt_length=row["prompt_length"],
        chain=chain,
        unread=row["unread"],
    )
