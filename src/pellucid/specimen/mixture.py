"""The whole corpus: tasks by weight, any document by its number."""

from random import Random
from types import ModuleType

from pellucid.specimen.corpora import arithmetic, boolean, facts, instructions, stories
from pellucid.specimen.labels import Document, Split

CORPORA: dict[str, ModuleType] = {
    module.TASK: module for module in (facts, arithmetic, boolean, stories, instructions)
}
TASKS = tuple(CORPORA)
WEIGHTS = {
    "facts": 0.20,
    "arithmetic": 0.36,
    "boolean": 0.12,
    "stories": 0.12,
    "instructions": 0.20,
}
"""Share of DOCUMENTS a task."""

_SPLIT_NUMBER: dict[Split, int] = {"train": 0, "heldout": 1}


def document_rng(seed: int, index: int, split: Split) -> Random:
    """The generator of one document: a function of seed, split and number alone."""
    return Random((seed << 64 | index) << 1 | _SPLIT_NUMBER[split])


def document(seed: int, index: int, *, split: Split = "train", task: str | None = None) -> Document:
    """Document number `index` of the endless corpus with that seed, of one task or of the mixture.

    Random access: the state of a stream is the next index. The two splits draw from different
    generators, and also differ in content: see `facts.two_hop_pairs`, `chains.split_of` and
    `instructions.is_held_out`.
    """
    rng = document_rng(seed, index, split)
    if task is None:
        task = rng.choices(TASKS, [WEIGHTS[name] for name in TASKS])[0]
    made: Document = CORPORA[task].document(rng, split)
    return made


def sample_documents(
    seed: int, count: int, task: str | None = None, *, split: Split = "train"
) -> list[Document]:
    """The first `count` documents of the corpus, or of one task."""
    return [document(seed, index, split=split, task=task) for index in range(count)]
