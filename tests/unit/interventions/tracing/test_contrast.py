"""Two prompts and what is compared: metrics by hand, and every way to get it wrong."""

import pytest
import torch

from pellucid.core.errors import ConfigError, InterventionError, PromptError
from pellucid.interventions.tracing import Contrast, contrast, single
from pellucid.interventions.tracing.metrics import Divergence, LogitDifference, Probability
from pellucid.models.model import LanguageModel
from unit.interventions.tracing.conftest import CLEAN, CORRUPT


def test_metrics_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    assert LogitDifference(2, 0)(logits).tolist() == [3.0, 0.0]
    assert Probability(1)(logits)[1].item() == pytest.approx(1 / 3)
    p = logits[0].softmax(0)
    wanted = -sum(float(a * (a * 3).log()) for a in p)
    assert Divergence(logits[0])(logits).tolist() == pytest.approx([0.0, wanted], abs=1e-6)


def test_answers_are_the_models_own_unless_given(specimen: LanguageModel, pair: Contrast) -> None:
    assert (pair.answer_text, pair.other_text) == ("austin", "sacramento")
    assert pair.differing == [7]
    named = contrast(specimen, CLEAN, CORRUPT, answer="austin", other="boston")
    logits = specimen.logits(named.clean[None])[0, -1]
    assert named.clean_value == pytest.approx(
        float(logits[named.answer] - logits[named.other]), abs=1e-5
    )


def test_effects_are_shares_of_the_gap_in_either_direction(
    specimen: LanguageModel, pair: Contrast
) -> None:
    logits = specimen.logits(torch.stack([pair.clean, pair.corrupt]))[:, -1]
    assert pair.effects(logits, "denoise").tolist() == pytest.approx([1, 0], abs=1e-5)
    assert pair.effects(logits, "noise").tolist() == pytest.approx([0, 1], abs=1e-5)


WRONG = [
    ({"corrupt": CORRUPT + " the"}, PromptError, "9 tokens and corrupt 10.*part at token 7"),
    ({"corrupt": CLEAN}, PromptError, "the same prompt"),
    ({"answer": "zzz"}, InterventionError, "answer is 'zzz', a word that the model does not know"),
    ({"answer": "austin boston"}, InterventionError, "2 tokens .*give one token"),
    ({"answer": 99_999}, InterventionError, "token 99999, outside the vocabulary"),
    ({"answer": "austin", "other": "austin"}, InterventionError, "the same token 'austin'"),
    ({"metric": "accuracy"}, ConfigError, "metric is 'accuracy'; use logit_difference"),
    ({"metric": lambda logits: logits[:, 0] * 0}, InterventionError, "no difference to trace"),
]


@pytest.mark.parametrize(("changed", "error", "message"), WRONG)
def test_bad_input(
    specimen: LanguageModel, changed: dict[str, object], error: type[Exception], message: str
) -> None:
    given = {"clean": CLEAN, "corrupt": CORRUPT} | changed
    with pytest.raises(error, match=message):
        contrast(specimen, **given)  # type: ignore[arg-type]


def test_a_single_prompt_names_two_different_answers(specimen: LanguageModel) -> None:
    alone = single(specimen, CLEAN)
    assert alone.answer_text == "austin" != alone.other_text
    with pytest.raises(InterventionError, match="the same token"):
        single(specimen, CLEAN, answer="austin", other="austin")
