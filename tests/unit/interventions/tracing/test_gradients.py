"""Screens and edges against identities that hold exactly, and against real patches."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.core.errors import ConfigError
from pellucid.core.places import HeadSite
from pellucid.core.types import Site
from pellucid.interventions.tracing import Contrast, contrast, edge_scores, screen
from pellucid.interventions.tracing.edges import input_gradients, pull_norm, receivers_of
from pellucid.interventions.tracing.gradients import (
    attention_run,
    dropping,
    interpolating,
    point_gradients,
    softmax_effects,
)
from pellucid.interventions.tracing.metrics import LogitDifference
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.models.resume import record
from support.tiny_models import FAMILIES, N_LAYERS, tiny_model

IDS = torch.tensor([1, 9, 30, 12, 51, 8])
OTHERS = torch.tensor([1, 22, 17, 40, 33, 60])
METRIC = LogitDifference(5, 9)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_into_all_receivers_sum_to_that_of_the_embedding(family: str) -> None:
    """The embedding reaches the metric by its edges and by nothing else."""
    model = load_model(tiny_model(family), check=False)
    (run,) = record(model, IDS[None])
    still = interpolating(model, run.residuals[0], run.residuals[0], 1)
    receivers = receivers_of(model)
    reads = input_gradients(model, METRIC, IDS, receivers, still, 1)
    embed = model.point(Site("resid_pre", 0))
    wanted = point_gradients(model, IDS, [embed], METRIC)[embed][0]
    assert torch.allclose(reads.sum(0), wanted, atol=1e-4 * float(wanted.abs().max() + 1))


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "olmo2"])
def test_the_norms_jacobian_is_autograds(family: str) -> None:
    model = load_model(tiny_model(family), check=False)
    norm = model.final_norm()
    x = torch.randn(2, 5, model.d_model, requires_grad=True)
    gradient = torch.randn(2, 5, model.d_model)
    (wanted,) = torch.autograd.grad(norm.apply(x, norm.scale(x)), x, gradient)
    assert torch.allclose(pull_norm(norm, x.detach(), gradient), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["q", "k"])
@pytest.mark.parametrize("family", FAMILIES)
def test_softmax_is_exact_for_queries_and_keys(family: str, kind: str) -> None:
    """Against the model itself with the query or key written in, read at `z`."""
    model = load_model(tiny_model(family), check=False)
    site = HeadSite(kind, 1, 1)  # type: ignore[arg-type]
    point, columns = model.head_point(site)
    z_point, _ = model.head_point(HeadSite("z", 1))
    kept: dict[str, Tensor] = {}

    def run(ids: Tensor, name: str, position: int | None = None) -> None:
        def write(value: Tensor, _: object) -> Tensor | None:
            if position is None:
                kept[name + "raw"] = value[..., columns]
                return None
            new = value.clone()
            new[0, position, columns] = kept["source" + "raw"][0, position]
            return new

        taps = [(point, write), (z_point, lambda value, _: kept.update({name: value}))]
        with torch.no_grad(), model.tapped(taps):  # type: ignore[arg-type]
            model.logits(ids[None])

    run(OTHERS, "source")
    run(IDS, "base")
    gradient = torch.randn(1, len(IDS), kept["base"].shape[-1])
    runs = [attention_run(model, ids, 1) for ids in (IDS, OTHERS)]
    found = softmax_effects(site, *runs, gradient)[0]
    for position in range(len(IDS)):
        run(IDS, "patched", position)
        wanted = ((kept["patched"] - kept["base"]) * gradient).sum()
        assert found[position].item() == pytest.approx(wanted.item(), abs=2e-4)


def test_no_gradient_flows_through_a_dropped_layer() -> None:
    model = load_model(tiny_model("llama"), check=False)
    points = [model.head_point(HeadSite("z", layer))[0] for layer in range(N_LAYERS)]
    found = point_gradients(model, IDS, points, METRIC, rows=N_LAYERS, after=dropping(model))
    for row in range(N_LAYERS):
        for layer in range(N_LAYERS):
            size = float(found[points[layer]][row].abs().max())
            assert (size == 0) == (row == layer)


def test_integrated_gradients_of_the_embeddings_are_complete(
    specimen: LanguageModel, pair: Contrast
) -> None:
    """With many steps the estimates of the first residual sum to the whole gap."""
    found = screen(specimen, pair, ["resid_pre@0"], method="eap-ig", steps=64, sample=0)
    assert found.estimate.effect.sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("method", ["atp", "atp*", "eap-ig"])
@pytest.mark.parametrize("site", ["z", "q", "neuron"])
def test_candidates_are_patched_for_real(
    specimen: LanguageModel, pair: Contrast, site: str, method: str
) -> None:
    found = screen(specimen, pair, site, method=method, top=6, sample=6)  # type: ignore[arg-type]
    assert len(found.top) == len(found.sample) == 6
    assert not set(found.top) & set(found.sample)
    assert all(np.isfinite(found.exact[cell]) for cell in found.top + found.sample)
    assert found.missed == 0
    assert found.agreement is not None
    assert found.agreement > 0.5
    assert found.receipt()["tokens_edited"] == 12


def test_exact_effects_are_those_of_a_sweep(specimen: LanguageModel, pair: Contrast) -> None:
    from pellucid.interventions.tracing import patching_sweep

    swept = patching_sweep(specimen, pair, "mlp_out", noise=0)
    found = screen(specimen, pair, "mlp_out", method="atp", top=99)
    assert np.allclose(found.exact, swept.effect, atol=1e-4)
    assert found.missed is None


def test_edges_find_the_two_hop_circuit(specimen: LanguageModel, pair: Contrast) -> None:
    found = edge_scores(specimen, pair, top=8, sample=8)
    best = {
        (cell["sender"], cell["receiver"]) for cell in (found.cell(*each) for each in found.top)
    }
    assert {("embed", "mlp_in@0"), ("mlp_out@0", "v@1[5]"), ("mlp_out@3", "logits")} <= best
    assert found.agreement is not None
    assert found.agreement > 0.8
    assert found.missed_share == 0


def test_an_unknown_method_is_refused(specimen: LanguageModel, pair: Contrast) -> None:
    with pytest.raises(ConfigError, match="method is 'magic'; use atp, atp"):
        screen(specimen, pair, method="magic")  # type: ignore[arg-type]


def test_a_sweep_of_ids_needs_no_tokenizer() -> None:
    model = load_model(tiny_model("gpt2"), check=False)
    pair = contrast(model, IDS.tolist(), OTHERS.tolist(), answer=5, other=9)
    assert pair.answer_text == "<5>"
