"""A table of steps with real readings of one chain, made large by noise."""

import numpy as np

from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.expressions import ARITHMETIC
from pellucid.verification.chains.writing import write_chains
from pellucid.verification.reading.reader import Reader, ReaderSettings
from pellucid.verification.steps.place import places
from pellucid.verification.steps.step_set import StepSet, concatenate
from pellucid.verification.watching.row import as_steps
from pellucid.verification.watching.segments import Segment

COPIES = 30


def noisy_steps(
    model: LanguageModel, dictionaries: DictionarySet, question: str, settings: ReaderSettings
) -> StepSet:
    """The steps of one chain `COPIES` times over; what is wrong is decided by two readings.

    Args:
        model: writes the chain.
        dictionaries: of the model.
        question: and its `=`.
        settings: what is read; the graph of the answer among it.
    """
    reader, rng = Reader(model, dictionaries, settings), np.random.default_rng(0)
    (written,) = write_chains(model, ARITHMETIC, [tuple(question.split()[:-1])])
    assert written.chain is not None
    chain, before = reader.chain(written.ids), written.chain.question
    rows = []
    for step, place in places(written.chain):
        segment = Segment(
            number=step.number,
            text=" ".join(step.expression),
            before=" ".join(before),
            question=" ".join(written.chain.question),
            place=place,
        )
        columns, before = chain.step(place).columns, step.expression
        noisy = [
            {name: v + abs(v) * rng.normal() + 1e-3 * rng.normal() for name, v in columns.items()}
            for _ in range(COPIES)
        ]
        rows.append(as_steps(segment, noisy, "arithmetic"))
    together = concatenate(rows)
    told = (
        together.columns["free.answer.least_token"] + together.columns["graph.answer.error.total"]
    )
    groups = np.array([f"q{n % 20}" for n in range(len(together))])
    wrong = told > np.quantile(told, 0.7)
    columns = {**together.columns, "wrong": wrong, "group": groups}
    return StepSet(columns=columns, record=reader.record())
