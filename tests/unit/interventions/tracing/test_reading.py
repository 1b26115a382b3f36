"""Direct attribution sums exactly; lenses end in the model's own prediction; training helps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.core.errors import CheckpointError, InterventionError
from pellucid.interventions.tracing import (
    Contrast,
    TunedLens,
    components,
    direct_attribution,
    evaluate_lenses,
    lens,
    load_tuned_lens,
    train_tuned_lens,
)
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.models.resume import record
from support.tiny_models import FAMILIES, tiny_model

IDS = torch.tensor([1, 9, 30, 12, 51, 8])


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_sum_to_the_logit(family: str) -> None:
    model = load_model(tiny_model(family), check=False)
    (run,) = record(model, IDS[None])
    _, written = components(model, IDS)
    assert torch.allclose(written.sum(0), run.residuals[-1][-1], atol=1e-4)
    for other in (None, 9):
        found = direct_attribution(model, IDS, 5, other)
        assert found.contributions.sum() == pytest.approx(found.total, abs=1e-4)
        assert len(found.names) == len(found.contributions) == len(found.spread)
    if model.logit_softcap is None:
        wanted = model.logits(IDS[None])[0, -1]
        assert found.total == pytest.approx(float(wanted[5] - wanted[9]), abs=1e-4)


def test_direct_attribution_of_the_specimen(
    specimen: LanguageModel, pair: Contrast, tmp_path: Path
) -> None:
    found = direct_attribution(specimen, pair.clean, pair.answer, pair.other)
    best = found.names[int(np.abs(found.contributions).argmax())]
    assert best == "mlp@3"
    assert found.to_json()["sum_error"] < 1e-3
    assert found.save(tmp_path / "bars.png").stat().st_size > 0
    with pytest.raises(InterventionError, match="token 99999 is outside the vocabulary"):
        direct_attribution(specimen, pair.clean, 99_999)


def test_the_lens_ends_in_the_models_prediction(
    specimen: LanguageModel, pair: Contrast, tmp_path: Path
) -> None:
    found = lens(specimen, pair.clean, [pair.answer, pair.other])
    final = specimen.logits(pair.clean[None])[0].softmax(-1)
    assert np.allclose(found.probability[0, -1], final[:, pair.answer].numpy(), atol=1e-5)
    assert found.kl[-1] == pytest.approx(0, abs=1e-5)
    assert found.kl_shuffled[-1] > 1
    assert found.top[-1][-1] == "austin"
    assert found.save(tmp_path / "lens.svg").stat().st_size > 0


def test_a_trained_lens_beats_the_logit_lens_and_its_controls(
    specimen: LanguageModel, tmp_path: Path
) -> None:
    done: list[int] = []
    tuned = train_tuned_lens(
        specimen, "specimen", steps=25, batch_tokens=128, on_progress=lambda n, _: done.append(n)
    )
    assert done[-1] == 25
    kl = evaluate_lenses(specimen, tuned, "specimen", tokens=512)
    for layer in range(specimen.n_layers):
        assert kl["tuned"][layer] < kl["logit"][layer]
        assert kl["tuned"][layer] < kl["shuffled"][layer]
        assert kl["tuned"][layer] < kl["unigram"][layer]
    again = load_tuned_lens(tuned.save(tmp_path / "lens", config={"steps": 25}))
    assert torch.equal(again.weight, tuned.weight)
    again.check_model(specimen)
    other = load_model(tiny_model("llama"), check=False)
    with pytest.raises(CheckpointError, match="trained on another model"):
        again.check_model(other)


def test_an_untrained_lens_is_the_logit_lens(specimen: LanguageModel, pair: Contrast) -> None:
    shape = specimen.n_layers, specimen.d_model
    zero = TunedLens(weight=torch.zeros(*shape, shape[1]), bias=torch.zeros(shape), fingerprint="")
    assert np.array_equal(
        lens(specimen, pair.clean, translate=zero).probability,
        lens(specimen, pair.clean).probability,
    )
