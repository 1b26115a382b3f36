"""The specimen's page names everything that the corpus and the evaluation contain."""

from pathlib import Path

import pytest

from pellucid.specimen import mixture, vocabulary
from pellucid.specimen.corpora import instructions
from pellucid.specimen.mixture import sample_documents
from pellucid.specimen.tasks import TASK_NAMES

PAGE = (Path(__file__).parents[3] / "docs" / "specimen.md").read_text(encoding="utf-8")


def test_every_role_is_documented() -> None:
    roles = {label.role for made in sample_documents(0, 1500) for label in made.labels} - {""}
    assert {role for role in roles if f"`{role}`" not in PAGE} == set()


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_evaluation_task_is_documented(task: str) -> None:
    assert f"`{task}`" in PAGE


def test_shares_trigger_and_vocabulary_are_documented() -> None:
    for task, weight in mixture.WEIGHTS.items():
        assert f"| `{task}` | {weight:.0%} |" in PAGE
    assert f"`{instructions.TRIGGER}`" in PAGE
    assert f"The vocabulary has {len(vocabulary.token_ids())} tokens" in PAGE
