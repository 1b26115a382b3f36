"""Tokens one by one, steps as they are completed, and when a free score decides."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pellucid
from pellucid.core.errors import ConfigError, DataError, PromptError
from pellucid.interventions.generate import generate
from pellucid.models.model import LanguageModel
from pellucid.verification.chains.expressions import ARITHMETIC
from pellucid.verification.chains.steps import read_chain
from pellucid.verification.steps.place import places
from pellucid.verification.watching.band import choose_band
from pellucid.verification.watching.segments import Segment, segmenter
from pellucid.verification.watching.streaming import prompt_ids, stream
from support.tiny_models import tiny_model

QUESTION = "( ( 3 + 4 ) * ( 2 - 5 ) ) ="


@pytest.fixture(scope="module")
def specimen() -> LanguageModel:
    return pellucid.load_model("specimen")


# Streaming


def test_greedy_tokens_are_those_of_generate(specimen: LanguageModel) -> None:
    ids = prompt_ids(specimen, QUESTION)
    tokens = list(stream(specimen, ids))
    made = generate(specimen, [ids], max_new_tokens=60)
    assert [token.id for token in tokens] == made.tokens[0]
    whole = specimen.logits(torch.tensor([[*ids, *made.tokens[0]]]))[0]
    for n, token in enumerate(tokens):
        torch.testing.assert_close(token.logits, whole[len(ids) - 1 + n], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_other_families_stream_what_they_would_generate(family: str) -> None:
    model = pellucid.load_model(tiny_model(family), check=False)
    ids = [3, 5, 7, 9]
    made = generate(model, [ids], max_new_tokens=6)
    start = prompt_ids(model, ids)
    assert [token.id for token in stream(model, start, max_new_tokens=6)] == made.tokens[0]


def test_sampling_repeats_with_its_seed_and_touches_no_global(specimen: LanguageModel) -> None:
    ids = prompt_ids(specimen, QUESTION)

    def drawn(seed: int) -> list[int]:
        made = stream(specimen, ids, max_new_tokens=12, temperature=3.0, seed=seed)
        return [token.id for token in made]

    state = torch.random.get_rng_state()
    assert drawn(1) == drawn(1) != drawn(2)
    assert torch.equal(state, torch.random.get_rng_state())


def test_limits_of_streaming(specimen: LanguageModel) -> None:
    ids = prompt_ids(specimen, QUESTION)
    assert len(list(stream(specimen, ids, max_new_tokens=3))) == 3
    with pytest.raises(PromptError, match="0 are asked for; shorten the prompt or ask for at"):
        next(stream(specimen, ids, max_new_tokens=0))
    with pytest.raises(PromptError, match="there are 0 tokens of room"):
        next(stream(specimen, [5] * specimen.context_length))


# Segments


def seen(model: LanguageModel, ids: Sequence[int], begin: int, by: str) -> list[Segment]:
    """Segments as they are completed, each checked to stay as it was."""
    cutting, found = segmenter(model, ids[:begin], by=by, language="arithmetic"), list[Segment]()
    for stop in range(begin + 1, len(ids) + 1):
        now = cutting.complete(ids[:stop], ended=False)
        if now:
            assert now[: len(found)] == found
            found = now
    last = cutting.complete(ids, ended=True)
    assert last[: len(found)] == found or not last
    return last or found


def test_expressions_are_complete_at_their_mark(specimen: LanguageModel) -> None:
    text = "( ( 3 + 4 ) * 2 ) = ( 8 * 2 ) = = 16 ."
    ids = prompt_ids(specimen, text)
    found = seen(specimen, ids, 11, "expressions")
    assert [each.text for each in found] == ["( 8 * 2 )", "16"]
    assert [each.before for each in found] == ["( ( 3 + 4 ) * 2 )", "( 8 * 2 )"]
    assert found[0].question == "( ( 3 + 4 ) * 2 )"


def test_places_are_those_of_chains_that_were_read(specimen: LanguageModel) -> None:
    text = "( ( 3 + 4 ) * ( 2 - 5 ) ) = ( 7 * ( 2 - 5 ) ) = ( 7 * -3 ) = -21 ."
    ids = prompt_ids(specimen, text)
    read = read_chain(ARITHMETIC, text.split())
    expected = [place for _, place in places(read)]
    assert [each.place for each in seen(specimen, ids, 15, "expressions")] == expected


def test_free_text_steps_are_complete_when_the_next_begins(specimen: LanguageModel) -> None:
    ids = prompt_ids(specimen, "( 3 + 4 ) = 7 , 5 , 6")
    found = seen(specimen, ids, 7, "pattern:,")
    words = [word.strip() for word in specimen.token_texts(ids)]
    assert [words[each.place.start : each.place.stop] for each in found] == [["7"], ["5"], ["6"]]
    assert found[2].before == "5"
    cutting = segmenter(specimen, ids[:7], by="pattern:,", language="text")
    assert [each.text for each in cutting.complete(ids, ended=False)] == ["7", "5"]


def test_a_prompt_without_a_mark_is_refused(specimen: LanguageModel) -> None:
    with pytest.raises(PromptError, match="has no '='; write a question and '='"):
        segmenter(specimen, prompt_ids(specimen, "3 + 4"), by="expressions", language="arithmetic")
    with pytest.raises(ConfigError, match="unknown way to cut a text"):
        segmenter(specimen, prompt_ids(specimen, "3 + 4"), by="words", language="text")


# The band

_steps = st.lists(
    st.tuples(st.integers(0, 12), st.booleans(), st.booleans(), st.sampled_from((1.0, 3.0))),
    min_size=1,
    max_size=60,
)


@settings(deadline=None)
@given(_steps, st.sampled_from((0.5, 0.8, 0.95, 1.0)))
def test_outside_the_band_the_free_score_decides_as_the_verifier(
    steps: list[tuple[int, bool, bool, float]], agreement: float
) -> None:
    score = np.array([each[0] for each in steps], dtype=float)
    flagged, wrong = (np.array([each[n] for each in steps]) for n in (1, 2))
    weight = np.array([each[3] for each in steps])
    band = choose_band({"free.x": score}, flagged, wrong, weight, agreement=agreement)
    decided = [band.decides(value) for value in score.tolist()]
    below = np.array([each is False for each in decided])
    above = np.array([each is True for each in decided])
    slack = 1e-6
    assert weight[below & flagged].sum() <= (1 - agreement) * weight[below].sum() + slack
    assert weight[above & ~flagged].sum() <= (1 - agreement) * weight[above].sum() + slack
    assert weight[below & flagged].sum() <= (1 - agreement) * weight[flagged].sum() + slack
    inside = weight[~below & ~above].sum() / weight.sum()
    assert band.share == pytest.approx(inside, abs=1e-9)
    assert (band.below.steps, band.above.steps) == (below.sum(), above.sum())
    smallest = _smallest(score, flagged, weight, agreement)
    assert band.share <= smallest + 1e-9


def _smallest(
    score: np.ndarray, flagged: np.ndarray, weight: np.ndarray, agreement: float
) -> float:
    """The least share within a band whose low threshold is as high as it may be, by trying all."""
    cuts = [-np.inf, *np.unique(score), np.inf]

    def passes(low: float) -> bool:
        below = score < low
        bad = weight[below & flagged].sum()
        return bad <= (1 - agreement) * min(weight[below].sum(), weight[flagged].sum()) + 1e-9

    low = max(cut for cut in cuts if passes(cut))
    best = 1.0
    for high in (cut for cut in cuts if cut >= low):
        above = score >= high
        if weight[above & ~flagged].sum() <= (1 - agreement) * weight[above].sum() + 1e-9:
            best = min(best, 1 - weight[(score < low) | above].sum() / weight.sum())
    return best


def test_the_free_score_with_the_smallest_band_is_chosen() -> None:
    flagged = np.array([False] * 90 + [True] * 10)
    good, poor = np.arange(100.0), np.tile([0.0, 1.0], 50)
    band = choose_band({"poor": poor, "good": good}, flagged, flagged, np.ones(100))
    assert (band.column, band.low, band.high, band.share) == ("good", 90.0, 90.0, 0.0)
    assert band.decides(89.9) is False and band.decides(90.0) is True
    assert band.below.wrong is not None and band.below.wrong.value == 0.0
    assert band.to_json()["above"]["wrong"]["trials"] == 10


def test_a_score_that_says_nothing_decides_nothing() -> None:
    flagged = np.tile([False, True], 50)
    band = choose_band({"x": np.zeros(100)}, flagged, flagged, np.ones(100))
    assert band.decides(0.0) is None and band.share == 1.0
    assert band.to_json()["low"] is None


def test_unusable_bands() -> None:
    with pytest.raises(ConfigError, match="the agreement is 0 and there are 1 free scores"):
        choose_band(
            {"x": np.zeros(1)}, np.zeros(1, bool), np.zeros(1, bool), np.ones(1), agreement=0
        )
    with pytest.raises(DataError, match="no steps to choose a band on"):
        choose_band({"x": np.zeros(0)}, np.zeros(0, bool), np.zeros(0, bool), np.ones(0))
