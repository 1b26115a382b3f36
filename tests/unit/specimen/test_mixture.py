from collections import Counter
from zlib import crc32

import pytest

from pellucid.specimen import mixture
from pellucid.specimen.mixture import document, sample_documents
from pellucid.specimen.vocabulary import SPECIAL_TOKENS, token_ids

CORPUS_CHECKSUM = 1804808309
VOCABULARY_CHECKSUM = 2460124453


def test_documents_are_random_access() -> None:
    forwards = [document(3, index) for index in range(50)]
    backwards = [document(3, index) for index in reversed(range(50))]
    assert forwards == backwards[::-1]


@pytest.mark.parametrize("other", [{"seed": 4}, {"split": "heldout"}])
def test_seed_and_split_change_the_stream(other: dict[str, object]) -> None:
    def texts(**settings: object) -> list[str]:
        return [document(index=index, **{"seed": 3, **settings}).text for index in range(20)]

    assert texts() != texts(**other)


def test_the_corpus_is_the_one_the_shipped_weights_learned() -> None:
    """Any change of a table, template or draw shows here: it calls for new weights.

    Labels may be refined without.
    """
    checksum = 0
    for split in ("train", "heldout"):
        for index in range(3000):
            made = document(0, index, split=split)
            checksum = crc32(made.text.encode(), checksum)
    assert checksum == CORPUS_CHECKSUM
    assert crc32(" ".join(token_ids()).encode()) == VOCABULARY_CHECKSUM


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_token_is_a_known_word_with_a_label_of_its_task(split: str) -> None:
    known = token_ids()
    for index in range(3000):
        made = document(8, index, split=split)
        assert len(made.tokens) == len(made.labels) > 0
        assert all(token in known for token in made.tokens)
        assert {label.task for label in made.labels} == {made.task}


def test_every_word_of_the_vocabulary_occurs() -> None:
    """Numbers aside: the outermost, such as -97, are within range but rare."""
    unused = {word for word in token_ids() if not word.lstrip("-").isdigit()}
    unused -= set(SPECIAL_TOKENS)
    for index in range(12_000):
        unused.difference_update(document(1, index).tokens)
        if not unused:
            return
    pytest.fail(f"never used: {unused}")


def test_weights_are_the_shares_of_documents() -> None:
    counts = Counter(document(2, index).task for index in range(5000))
    assert set(counts) == set(mixture.TASKS)
    assert sum(mixture.WEIGHTS.values()) == pytest.approx(1)
    for task, weight in mixture.WEIGHTS.items():
        assert counts[task] / 5000 == pytest.approx(weight, abs=0.03)


def test_samples_of_one_task_are_of_that_task() -> None:
    for task in mixture.TASKS:
        assert {made.task for made in sample_documents(0, 5, task)} == {task}
