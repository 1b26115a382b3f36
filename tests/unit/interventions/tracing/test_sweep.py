"""Sweeps and noise tracing against plain runs, their controls, and what they write."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.core.errors import ConfigError, InterventionError, PromptError, SiteError
from pellucid.core.types import Site
from pellucid.interventions import Intervention, PatchFrom, at
from pellucid.interventions.run import run as run_edited
from pellucid.interventions.tracing import Contrast, SweepResult, noise_tracing, patching_sweep
from pellucid.interventions.tracing.draw import heat_map
from pellucid.models.model import LanguageModel
from unit.interventions.tracing.conftest import BRIDGE, LAST


@pytest.fixture(scope="module")
def swept(specimen: LanguageModel, pair: Contrast) -> SweepResult:
    same = "the capital of the state containing oakland is"
    return patching_sweep(specimen, pair, noise=2, same=same)


def test_every_cell_is_the_effect_of_that_patch(
    specimen: LanguageModel, pair: Contrast, swept: SweepResult
) -> None:
    donor = tuple(pair.clean.tolist())
    for layer in range(specimen.n_layers):
        for position in range(len(donor)):
            edit = Intervention(Site("resid_pre", layer), PatchFrom(donor), at(position))
            if position < BRIDGE or (layer == 0 and position != BRIDGE):
                assert swept.effect[layer, position] == 0  # both runs have the same value there
                continue
            edited = run_edited(specimen, pair.corrupt[None], [edit])
            wanted = pair.effects(edited.logits[:, -1], "denoise").item()
            assert swept.effect[layer, position] == pytest.approx(wanted, abs=1e-4)


def test_running_equal_values_too_changes_nothing(
    specimen: LanguageModel, pair: Contrast, swept: SweepResult
) -> None:
    whole = patching_sweep(specimen, pair, noise=0, skip_equal=False)
    assert np.allclose(whole.effect, swept.effect, atol=1e-4)
    assert whole.noise is None


def test_the_bridge_carries_the_answer_and_then_the_last_token(swept: SweepResult) -> None:
    assert swept.noise is not None
    assert swept.same is not None
    assert swept.effect[1].argmax() == BRIDGE
    assert swept.effect[1, BRIDGE] > 0.9 > 0.5 > swept.noise[1, BRIDGE]
    assert swept.effect[-1].argmax() == LAST
    assert np.abs(swept.same).max() < 0.1


def test_receipt_counts_the_patches_that_changed_something(swept: SweepResult) -> None:
    receipt = swept.receipt()
    assert receipt["tokens_edited"] == (swept.relative_change > 0).sum() == 7
    assert receipt["mean_relative_norm"] > 0
    assert swept.strongest(99)[0]["site"].startswith("resid_pre@")
    assert len(swept.strongest(99)) == 7


def test_heads_sum_to_about_their_layer(specimen: LanguageModel, pair: Contrast) -> None:
    """To first order; the head that moves the state is the largest."""
    heads = patching_sweep(specimen, pair, "z", layers=[1], positions=[-1], noise=0)
    whole = patching_sweep(specimen, pair, "attn_out", layers=[1], positions=[-1], noise=0)
    assert len(heads.places) == 6
    assert heads.effect.sum() == pytest.approx(float(whole.effect.sum()), abs=0.15)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"positions": [9]}, InterventionError, "position 9 is beyond the prompt of 9 tokens"),
        ({"positions": [2]}, InterventionError, "the two runs have the same values"),
        ({"site": "resid_pre@7"}, SiteError, "layer 7"),
        ({"site": "z@0[9]"}, SiteError, "head 9"),
        ({"site": "feature@0[1]"}, SiteError, "cannot be traced"),
        ({"direction": "sideways"}, ConfigError, "use denoise or noise"),
        ({"same": "austin"}, PromptError, "the control prompt has 2 tokens"),
    ],
)
def test_bad_input(
    specimen: LanguageModel,
    pair: Contrast,
    given: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        patching_sweep(specimen, pair, **given)  # type: ignore[arg-type]


def test_results_are_written(swept: SweepResult, tmp_path: Path) -> None:
    assert json.loads(json.dumps(swept.to_json()))["tokens"][BRIDGE] == "fresno"
    assert swept.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    drawn = swept.save(tmp_path / "a.svg").read_text()
    assert drawn.startswith("<?xml")
    with pytest.raises(ConfigError, match=r"'.gif'; pictures end in .png or .svg"):
        swept.save(tmp_path / "a.gif")


def test_text_is_drawn_as_it_is_and_colours_are_centred() -> None:
    figure = heat_map("$t$", {"<b>": np.array([[0.5, -2.0]])}, ["x"], ["$a_b$", "<i>"])
    image = figure.axes[0].images[0]
    assert image.get_clim() == (-2.0, 2.0)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [r"\$a_b\$", "<i>"]


def test_restoring_the_one_blurred_token_restores_everything(
    specimen: LanguageModel, pair: Contrast
) -> None:
    found = noise_tracing(specimen, pair, "dallas", "resid_pre", draws=4)
    assert found.low is not None
    assert found.high is not None
    assert found.effect[0, BRIDGE] == pytest.approx(1, abs=1e-4)
    assert found.effect[:, :BRIDGE] == pytest.approx(0, abs=1e-4)
    assert (found.low <= found.effect + 1e-9).all()
    assert (found.effect <= found.high + 1e-9).all()


def test_wider_windows_restore_more_at_once(specimen: LanguageModel, pair: Contrast) -> None:
    """A window of every layer at the last token restores the whole run: it ends there."""
    whole = noise_tracing(specimen, pair, [BRIDGE], "resid_post", draws=2, window=8)
    assert whole.effect[:, LAST] == pytest.approx(1, abs=1e-3)
    with pytest.raises(InterventionError, match="subject 'houston' does not occur"):
        noise_tracing(specimen, pair, "houston")
    with pytest.raises(InterventionError, match="nothing to restore"):
        noise_tracing(specimen, pair, "dallas", sigmas=0.0, draws=2)


def test_noise_is_seeded(specimen: LanguageModel, pair: Contrast) -> None:
    torch.manual_seed(5)
    first = noise_tracing(specimen, pair, "dallas", draws=2, seed=3)
    torch.manual_seed(6)
    assert np.array_equal(
        first.effect, noise_tracing(specimen, pair, "dallas", draws=2, seed=3).effect
    )
