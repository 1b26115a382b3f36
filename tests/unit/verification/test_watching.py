"""A chain watched while the specimen writes it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import ConfigError, PromptError
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.tables import NODE_KINDS
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.expressions import ARITHMETIC
from pellucid.verification.chains.writing import write_chains
from pellucid.verification.reading.reader import Reader, ReaderSettings
from pellucid.verification.steps.place import places
from pellucid.verification.steps.step_set import StepSet
from pellucid.verification.verifier.settings import Settings
from pellucid.verification.verifier.verifier import Verifier
from pellucid.verification.watching.row import as_steps
from pellucid.verification.watching.watch import Watcher, WatchSettings, watch
from support.noisy_steps import noisy_steps

QUESTION = "( ( 3 + 4 ) * ( 2 - 5 ) ) ="
READ = ReaderSettings(targets=("answer",), max_features=24, tokens=False)


@pytest.fixture(scope="module")
def subject() -> tuple[LanguageModel, DictionarySet]:
    return pellucid.load_model("specimen"), pellucid.load_dictionaries("specimen")


@pytest.fixture(scope="module")
def steps(subject: tuple[LanguageModel, DictionarySet]) -> StepSet:
    return noisy_steps(*subject, QUESTION, READ)


def fitted(steps: StepSet, *columns: str) -> Verifier:
    settings = Settings(columns=columns, estimator="logistic", folds=2, refits=2, recall=0.5)
    return Verifier.fit(steps, settings)


@pytest.fixture(scope="module")
def verifier(steps: StepSet) -> Verifier:
    return fitted(steps, "free.answer.", "graph.answer.error")


def test_steps_come_out_judged_as_reading_the_whole_chain_judges_them(
    subject: tuple[LanguageModel, DictionarySet], verifier: Verifier
) -> None:
    model, dictionaries = subject
    watcher = Watcher(model, dictionaries, verifier, WatchSettings(banded=False, threshold=1e-9))
    found = list(watcher.watch(QUESTION))
    (written,) = write_chains(model, ARITHMETIC, [tuple(QUESTION.split()[:-1])])
    assert written.chain is not None
    assert [each.segment.text.split() for each in found] == [
        list(step.expression) for step in written.chain.steps
    ]
    chain, before = Reader(model, dictionaries, READ).chain(written.ids), written.chain.question
    for each, (step, place) in zip(found, places(written.chain), strict=True):
        assert each.segment.place == place and each.segment.before == " ".join(before)
        row = as_steps(each.segment, [chain.step(place).columns], "arithmetic")
        assert each.probability == pytest.approx(float(verifier.probability(row)[0]), abs=1e-4)
        assert each.graphed and each.flagged and each.interval is not None
        before = step.expression


def test_accused_features_are_those_without_which_the_verifier_doubts_less(
    subject: tuple[LanguageModel, DictionarySet], steps: StepSet
) -> None:
    settings = WatchSettings(banded=False, threshold=1e-9, features=4, stop=True, keep_graphs=True)
    whole = fitted(steps, "free.answer.", "graph.answer.")
    (step,) = watch(*subject, whole, QUESTION, settings)
    assert step.accused and list(step.graphs) == ["answer"]
    contributions = [each.contribution for each in step.accused]
    assert contributions == sorted(contributions, reverse=True) and min(contributions) > 0
    nodes = step.graphs["answer"].nodes
    for each in step.accused:
        mine = (nodes.layer == each.layer) & (nodes.position == each.position)
        if each.kind == "feature":
            mine &= nodes.index == each.index
        assert (mine & (nodes.kind == NODE_KINDS.index(each.kind))).sum() == 1
    assert step.reasons and {name for name, _ in step.reasons} <= set(whole.columns)


def test_the_free_score_decides_outside_the_band(
    subject: tuple[LanguageModel, DictionarySet], verifier: Verifier
) -> None:
    sure = Watcher(*subject, verifier, WatchSettings(agreement=0.6))
    assert sure.band is not None and sure.band.share < 1
    found = list(sure.watch(QUESTION))
    everything = list(Watcher(*subject, verifier, WatchSettings(banded=False)).watch(QUESTION))
    assert any(not each.graphed for each in found)
    for each, whole in zip(found, everything, strict=True):
        assert each.segment == whole.segment and whole.graphed
        assert each.score is not None
        assert each.graphed is (sure.band.decides(each.score) is None)
        if each.graphed:
            assert each.probability == whole.probability
    record = sure.summary(found)
    assert record["graphed_share"] == np.mean([each.graphed for each in found])
    assert record["band"]["column"] == sure.band.column


def test_a_verifier_of_free_scores_needs_no_graph(
    subject: tuple[LanguageModel, DictionarySet], steps: StepSet
) -> None:
    found = list(watch(*subject, fitted(steps, "free."), QUESTION, WatchSettings(banded=False)))
    assert found and not any(each.graphed or each.accused for each in found)


def test_watching_stops_at_the_first_flagged_step(
    subject: tuple[LanguageModel, DictionarySet], verifier: Verifier
) -> None:
    settings = WatchSettings(banded=False, threshold=1e-9, stop=True)
    watcher = Watcher(*subject, verifier, settings)
    found = list(watcher.watch(QUESTION))
    assert len(found) == 1 and watcher.summary(found)["stopped"]


def test_a_verifier_is_read_back_and_watches_the_same(
    subject: tuple[LanguageModel, DictionarySet], verifier: Verifier, tmp_path: Path
) -> None:
    from pellucid.verification.verifier.saved import load_verifier

    verifier.save(tmp_path / "v")
    again = load_verifier(tmp_path / "v", model_fingerprint=subject[0].fingerprint())
    first, second = (next(watch(*subject, each, QUESTION)) for each in (verifier, again))
    assert first.probability == second.probability


def test_bad_input_is_refused(
    subject: tuple[LanguageModel, DictionarySet], verifier: Verifier
) -> None:
    with pytest.raises(PromptError, match="has no '='"):
        next(watch(*subject, verifier, "3 + 4"))
    with pytest.raises(ConfigError, match="the threshold is 2; give a probability"):
        WatchSettings(threshold=2)
    other = replace(verifier, record={**verifier.record, "dictionaries": "others"})
    with pytest.raises(ConfigError, match="fitted with the dictionaries 'others', not"):
        Watcher(*subject, other)
