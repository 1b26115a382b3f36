"""A copy of the specimen whose culprit is known, and what is usual in the plain specimen."""

from dataclasses import dataclass

import pytest

from pellucid import api
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.kept import KeptChain
from pellucid.verification.collecting.collect import Questions, as_step_set, read_chain_steps
from pellucid.verification.reading.reader import Reader, ReaderSettings
from pellucid.verification.repair.usual import Usual
from pellucid.verification.steps.step_set import StepSet

RULE, LAYER = "dropped-carry", 3
ANSWERS = ReaderSettings(targets=("answer",), max_features=64, tokens=False)


@dataclass(frozen=True)
class Planted:
    """The copy, its chains, and readings of the plain specimen's right steps."""

    model: LanguageModel
    dictionaries: DictionarySet
    chains: list[KeptChain]
    plain_steps: StepSet
    usual: Usual


@pytest.fixture(scope="package")
def planted() -> Planted:
    """Two-operator questions keep it quick."""
    specimen, dictionaries = api.load_model("specimen"), api.load_dictionaries("specimen")
    asked = Questions(operators=(1, 2), count=16, temperature=0.0, seed=3)
    reader = Reader(specimen, dictionaries, ANSWERS)
    rows = [
        row
        for number, kept in enumerate(asked.chains(specimen, 0, "plain"))
        for row in read_chain_steps(reader, kept, number, lambda labels: not labels["wrong"])
    ]
    steps = as_step_set(rows, reader.record())
    copy = api.load_model(f"specimen:planted-{RULE}")
    asked = Questions(operators=(2, 3), count=24, temperature=0.0, seed=4)
    return Planted(copy, dictionaries, asked.chains(copy, 0, "copy"), steps, Usual.of(steps))
