"""Tracing many prompts into one Parquet dataset, shared out over processes and resumable.

Prompts are cut into parts of consecutive ones; process r of n takes every n-th part. A part is
written whole or not at all, so that a run that was stopped goes on where it was, also with another
number of processes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pellucid.attribution.trace import trace
from pellucid.core.claims import claim_folder
from pellucid.core.errors import DataError, PromptError
from pellucid.core.manifest import MANIFEST_NAME
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.formats.parquet import write_parquet
from pellucid.graphs.graph import AttributionGraph
from pellucid.models.model import LanguageModel

PART = 16
"""Prompts a part."""


@dataclass(frozen=True, slots=True)
class NamedPrompt:
    """A prompt, as text or token ids, and the id of its graph."""

    name: str
    prompt: str | list[int]


@dataclass(frozen=True, slots=True)
class Share:
    """Which process this is, of how many."""

    rank: int = 0
    world: int = 1


def read_prompts(path: str | Path) -> list[NamedPrompt]:
    """The prompts of a file: one a line, or with the suffix .jsonl one JSON object a line.

    An object has `prompt` (text) or `ids` (token ids), and may have `id`, the graph's name.

    Raises:
        DataError: no such file, nothing in it, or a line that is no prompt.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}); check the path") from error
    read = _json_prompt if path.suffix == ".jsonl" else _text_prompt
    prompts = [
        read(line, f"{path}:{number}", f"{number:06d}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise DataError(f"{path} holds no prompt; write one a line")
    names = Counter(prompt.name for prompt in prompts)
    name, uses = names.most_common(1)[0]
    if uses > 1:
        raise DataError(f"{path} has {uses} prompts with the id {name!r:.60}; rename them")
    return prompts


def trace_prompts(
    model: LanguageModel,
    prompts: Sequence[NamedPrompt],
    dictionaries: DictionarySet | None,
    folder: str | Path,
    *,
    share: Share = Share(),
    on_progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> dict[str, int]:
    """Trace this process's share of some prompts into a folder of graph tables.

    Args:
        model: the language model.
        prompts: all prompts, the same in every process.
        dictionaries: as for `trace`.
        folder: the dataset; read it with `pellucid.graphs.read_parquet`.
        share: which parts to do.
        on_progress: called with (prompts of this process done, all of its prompts).
        **settings: of `trace`.

    Returns:
        `traced` and `found`: how many of this process's graphs were made, and were there already.

    Raises:
        CheckpointError: the folder holds graphs of other prompts, another model or other settings.
        PromptError: a prompt cannot be traced; none is traced then.
        DictionaryError, ConfigError: as `trace` raises them.
    """
    folder = Path(folder)
    starts = range(PART * share.rank, len(prompts), PART * share.world)
    mine = [prompts[start : start + PART] for start in starts]
    for each in prompts:  # of every process, so that all of them stop at a bad one
        _encodable(model, each)
    _claim(folder, model, prompts, dictionaries, settings)
    total = sum(len(part) for part in mine)
    counts = {"traced": 0, "found": 0}

    def tell() -> None:
        if on_progress is not None:
            on_progress(sum(counts.values()), total)

    def graphs(part: Sequence[NamedPrompt]) -> Iterator[tuple[str, AttributionGraph]]:
        for each in part:
            yield each.name, trace(model, each.prompt, dictionaries, **settings)
            counts["traced"] += 1
            tell()

    for start, part in zip(starts, mine, strict=True):
        target = folder / f"part-{start // PART:05d}"
        if (target / MANIFEST_NAME).exists():
            counts["found"] += len(part)
            tell()
        else:
            write_parquet(graphs(part), target)
    return counts


def _claim(
    folder: Path,
    model: LanguageModel,
    prompts: Sequence[NamedPrompt],
    dictionaries: DictionarySet | None,
    settings: dict[str, Any],
) -> None:
    """Note what the folder is for; refuse one that is for something else."""
    text = json.dumps([asdict(prompt) for prompt in prompts])
    wanted = {
        "prompts": len(prompts),
        "prompts_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "model": model.fingerprint(),
        "dictionaries": None if dictionaries is None else dictionaries.name,
        "settings": {key: str(value) for key, value in settings.items()},
    }
    claim_folder(folder, wanted, "graphs")


def _encodable(model: LanguageModel, named: NamedPrompt) -> None:
    try:
        if isinstance(named.prompt, str):
            model.encode(named.prompt)
        else:
            model.encode_ids(named.prompt)
    except PromptError as error:
        raise PromptError(f"prompt {named.name!r:.60}: {error}") from None


def _text_prompt(line: str, where: str, name: str) -> NamedPrompt:
    return NamedPrompt(name, line.strip())


def _json_prompt(line: str, where: str, name: str) -> NamedPrompt:
    try:
        record = json.loads(line)
        name = str(record.get("id", name))
        if "ids" in record:
            return NamedPrompt(name, [int(number) for number in record["ids"]])
        if isinstance(record["prompt"], str):
            return NamedPrompt(name, record["prompt"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise DataError(f'{where} is no prompt; write {{"prompt": text}} or {{"ids": [1, 2]}}')
