"""Questions drawn by rule, and chains that the specimen writes."""

import pytest

import pellucid
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.expressions import LANGUAGES, parse
from pellucid.verification.chains.questions import QUESTIONS, draw_questions, language_of
from pellucid.verification.chains.writing import read_written, write_chains


@pytest.fixture(scope="module")
def specimen() -> LanguageModel:
    return pellucid.load_model("specimen")


@pytest.mark.parametrize("grammar", list(QUESTIONS))
def test_questions_are_distinct_expressions_and_repeat_with_the_seed(grammar: str) -> None:
    found = draw_questions(grammar, (2, 4), 40, seed=3)
    assert found == draw_questions(grammar, (2, 4), 40, seed=3)
    assert found != draw_questions(grammar, (2, 4), 40, seed=4)
    assert len(set(found)) == 40
    for question in found:
        parse(LANGUAGES[language_of(grammar)], question)


def test_paper_questions_have_as_many_operators_as_asked() -> None:
    for question in draw_questions("paper-arithmetic", (5, 5), 20, seed=0):
        assert question.count("(") == 5


def test_short_grammars_run_out() -> None:
    assert len(draw_questions("paper-boolean", (0, 0), 10, seed=0)) == 2


def test_written_chains_do_not_depend_on_the_batch(specimen: LanguageModel) -> None:
    questions = draw_questions("boolean", (2, 4), 12, seed=0)
    together = list(write_chains(specimen, LANGUAGES["boolean"], questions))
    apart = list(write_chains(specimen, LANGUAGES["boolean"], questions, rows=5))
    assert [each.ids for each in together] == [each.ids for each in apart]
    for question, written in zip(questions, together, strict=True):
        assert written.chain is not None and written.chain.question == question
        words = specimen.token_texts(list(written.ids))[1:]
        for step in written.chain.steps:
            assert tuple(words[step.start : step.stop]) == step.expression
    assert sum(each.chain is not None and each.chain.right for each in together) >= 11


def test_sampling_repeats_with_its_seed(specimen: LanguageModel) -> None:
    questions = draw_questions("arithmetic", (3, 5), 6, seed=0)

    def ids(seed: int) -> list[tuple[int, ...]]:
        written = write_chains(
            specimen, LANGUAGES["arithmetic"], questions, temperature=2.0, seed=seed
        )
        return [each.ids for each in written]

    assert ids(1) == ids(1) != ids(2)


def test_what_cannot_be_read_is_kept_with_its_reason(specimen: LanguageModel) -> None:
    prompt = specimen.encode("( 3 + 4 ) =").tolist()
    new = specimen.encode("dallas .").tolist()[1:]
    written = read_written(specimen, LANGUAGES["arithmetic"], prompt, new)
    assert written.chain is not None and written.chain.steps[0].error == "malformed"
    cut = read_written(specimen, LANGUAGES["arithmetic"], prompt, [])
    assert cut.chain is None and cut.unread is not None and "no complete step" in cut.unread
