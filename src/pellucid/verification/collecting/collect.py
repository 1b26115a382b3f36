"""From questions to a folder of read steps, part by part.

A part is written whole or not at all, so that a run that was killed goes on where it was, also with
another number of processes; process r of n takes every n-th part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from pellucid.attribution.many import Share
from pellucid.core.claims import claim_folder, read_claim
from pellucid.core.errors import CheckpointError, ConfigError, DataError
from pellucid.core.files import atomic_directory
from pellucid.core.manifest import MANIFEST_NAME, Manifest, config_hash, read_manifest
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.kept import KeptChain, keep_written, summary
from pellucid.verification.chains.questions import draw_questions, language_of
from pellucid.verification.chains.store import load_chains, save_chains
from pellucid.verification.chains.writing import write_chains
from pellucid.verification.reading.reader import Reader, StepReading
from pellucid.verification.steps.step_set import (
    LABELS,
    Ragged,
    StepSet,
    concatenate,
    read_steps,
    write_steps,
)
from pellucid.verification.steps.table import Labels, chain_ids, columns_of, labelled_places

KIND = "verification-steps"
CHAINS = "chains"
PART = 32
"""Chains a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Chains that the model under test is to write.

    Attributes:
        grammar: of `pellucid.verification.chains.questions.QUESTIONS`.
        operators: least and most operators of a question.
        count: how many.
        temperature: 0 for greedy.
        seed: of the questions and of sampling.

    Raises:
        ConfigError: a number is out of range.
    """

    grammar: str = "arithmetic"
    operators: tuple[int, int] = (3, 5)
    count: int = 1000
    temperature: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        least, most = self.operators
        if not 1 <= least <= most:
            raise ConfigError(f"operators {least} to {most} make no sense; give 1 or more")
        if self.count < 1 or self.temperature < 0:
            raise ConfigError(
                f"{self.count} questions at temperature {self.temperature} make no sense; give at "
                "least one, and 0 or more"
            )

    def chains(self, model: LanguageModel, part: int, source: str) -> list[KeptChain]:
        """The chains of one part, written by the model."""
        questions = draw_questions(self.grammar, self.operators, self.count, self.seed)
        start = part * PART
        mine, language = questions[start : start + PART], language_of(self.grammar)
        written = write_chains(
            model,
            LANGUAGES[language],
            mine,
            temperature=self.temperature,
            seed=self.seed + start,
            rows=PART,
        )
        kept = keep_written(written, mine, source=source, language=language)
        return [replace(each, id=f"{source}-{start + n}") for n, each in enumerate(kept)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which steps are read.

    Attributes:
        strict: none after a chain's first wrong step (the published setting).
        right_share: share of right steps that is read; each then stands for several.
        seed: of the choice.
    """

    strict: bool = True
    right_share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.right_share <= 1:
            raise ConfigError(f"the share of right steps is {self.right_share}; give one in (0, 1]")


def collect(
    reader: Reader,
    chains: Questions | Sequence[KeptChain],
    folder: str | Path,
    *,
    source: str = "plain",
    sampling: Sampling | None = None,
    share: Share | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write chains (or take given ones), read their steps, and keep both.

    Args:
        reader: of the model under test.
        chains: what it is to write, or chains that exist.
        folder: of the parts; read it with `load_steps`.
        source: name of what wrote them.
        sampling: which steps are read.
        share: which parts this process does.
        on_progress: called with (chains of this process done, all of its chains).

    Returns:
        `read` and `found`: how many of this process's chains were read, and were there already.

    Raises:
        CheckpointError: the folder holds steps of other chains, another model or other settings.
        ConfigError, DataError, PromptError: the questions or chains do not fit the model, or two
            chains have one id.
    """
    folder, sampling = Path(folder), sampling or Sampling()
    share = share or Share()
    count = chains.count if isinstance(chains, Questions) else len(chains)
    if isinstance(chains, Questions):
        count = len(draw_questions(chains.grammar, chains.operators, chains.count, chains.seed))
    elif len({each.id for each in chains}) < count:
        raise DataError("two chains have one id; give every chain an id of its own")
    if not count:
        raise DataError("there are no chains to read; give some")
    record = reader.record() | {
        "source": source,
        "chains": asdict(chains) if isinstance(chains, Questions) else _hash(chains),
        "sampling": asdict(sampling),
    }
    claim_folder(folder, record, "steps")
    starts = range(PART * share.rank, count, PART * share.world)
    total, counts = sum(min(PART, count - start) for start in starts), {"read": 0, "found": 0}
    for start in starts:
        target, size = folder / f"part-{start // PART:05d}", min(PART, count - start)
        if (target / MANIFEST_NAME).exists():
            counts["found"] += size
        else:
            if isinstance(chains, Questions):
                kept = chains.chains(reader.model, start // PART, source)
            else:
                kept = list(chains[start : start + PART])
            _write_part(reader, kept, target, start, sampling, record)
            counts["read"] += size
        if on_progress is not None:
            on_progress(sum(counts.values()), total)
    return counts


def load_steps(folder: str | Path) -> StepSet:
    """All steps of a collected folder, in the order of their chains.

    Raises:
        CheckpointError: a part is damaged, or the folder is no such folder.
        DataError: it holds no step.
    """
    folder = Path(folder)
    parts = sorted(folder.glob("part-*"))
    if not parts:
        raise CheckpointError(f"{folder} holds no steps; run `pellucid verify collect` into it")
    sets, record = [], read_claim(folder)
    for part in parts:
        manifest = read_manifest(part, kind=KIND)
        if manifest.results["steps"]:
            sets.append(read_steps(part, record))
    if not sets:
        raise DataError(f"no chain in {folder} has a step; collect other chains")
    return concatenate(sets)


def load_kept(folder: str | Path) -> list[KeptChain]:
    """All chains of a collected folder.

    Raises:
        CheckpointError: a part is damaged.
    """
    parts = sorted(Path(folder).glob("part-*"))
    return [chain for part in parts for chain in load_chains(part / CHAINS)]


def read_chain_steps(
    reader: Reader, kept: KeptChain, number: int, chosen: Callable[[Labels], bool]
) -> list[tuple[Labels, StepReading]]:
    """The chosen steps of one chain, each with its labels.

    Args:
        reader: of the model that wrote it.
        kept: the chain.
        number: of the chain in its source.
        chosen: whether a step is read, by its labels; asked of every step, in order.
    """
    if kept.unread is not None:
        return []
    picked = [
        (labels, place)
        for labels, place in labelled_places(reader.model, kept, number)
        if chosen(labels)
    ]
    if not picked:
        return []
    chain = reader.chain(chain_ids(reader.model, kept))
    return [(labels, chain.step(place)) for labels, place in picked]


def as_step_set(
    rows: Sequence[tuple[Labels, StepReading]], record: Mapping[str, Any] | None = None
) -> StepSet:
    """Read steps as a table.

    Args:
        rows: labels and readings; at least one.
        record: how they were read.
    """
    from scipy.sparse import csr_matrix

    readings = [reading for _, reading in rows]
    columns = columns_of([{name: labels[name] for name in LABELS} for labels, _ in rows])
    columns |= columns_of([{"seconds": each.seconds, **each.columns} for each in readings])
    first, bags, ragged = readings[0], {}, {}
    for name, (_, _, size) in first.bags.items():
        parts = [each.bags[name] for each in readings]
        ends = np.cumsum([0, *(len(numbers) for numbers, _, _ in parts)])
        values = np.concatenate([values for _, values, _ in parts]).astype(np.float32)
        numbers = np.concatenate([numbers for numbers, _, _ in parts]).astype(np.int64)
        bags[name] = csr_matrix((values, numbers, ends), shape=(len(rows), size))
    for name in first.ragged:
        tokens = [each.ragged[name] for each in readings]
        ragged[name] = Ragged(np.concatenate(tokens), np.array([len(each) for each in tokens]))
    return StepSet(
        columns=columns,
        arrays={n: np.stack([each.arrays[n] for each in readings]) for n in first.arrays},
        bags=bags,
        ragged=ragged,
        record=record or {},
    )


def _write_part(
    reader: Reader,
    kept: list[KeptChain],
    target: Path,
    start: int,
    sampling: Sampling,
    record: dict[str, Any],
) -> None:
    rng = Random(f"{sampling.seed}/{start}")
    rows: list[tuple[Labels, StepReading]] = []
    for offset, each in enumerate(kept):
        strict = each.until_error() if sampling.strict else each
        rows += read_chain_steps(
            reader,
            strict,
            start + offset,
            lambda labels: labels["wrong"] or rng.random() < sampling.right_share,
        )
    for labels, _ in rows:
        labels["weight"] = 1.0 if labels["wrong"] else 1.0 / sampling.right_share
    with atomic_directory(target) as folder:
        files = write_steps(as_step_set(rows, record), folder) if rows else []
        save_chains(folder / CHAINS, kept, record=record)
        results = summary(kept) | {"steps": len(rows)}
        Manifest(kind=KIND, config=record, results=results).write(folder, files)


def _hash(chains: Sequence[KeptChain]) -> str:
    return config_hash({"chains": [asdict(each) for each in chains]})
