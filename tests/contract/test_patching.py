"""Patched copies that go on from the middle are those of the whole model, in every family."""

import pytest
import torch
from torch import Tensor

from pellucid.core.places import HeadSite
from pellucid.core.types import Site
from pellucid.interventions import Intervention, Set
from pellucid.interventions.run import run as run_edited
from pellucid.interventions.tracing.patches import Put, patched_logits
from pellucid.interventions.tracing.slots import NeuronSite, TracingSite, slot
from pellucid.interventions.where import at as token
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.models.resume import record
from pellucid.models.taps import TapCall
from support.tiny_models import FAMILIES, N_LAYERS, tiny_model

LENGTH = 7


def places(model: LanguageModel, layer: int) -> list[TracingSite]:
    assert model.spec is not None
    kinds = ["resid_pre", "resid_post", "attn_out", "mlp_in", "mlp_out"]
    kinds += [] if model.spec.parallel else ["resid_mid"]
    heads = [HeadSite(kind, layer, 1) for kind in "qkvz"]
    return [*(Site(kind, layer) for kind in kinds), *heads, NeuronSite(layer, 5)]  # type: ignore[arg-type]


def naive(model: LanguageModel, ids: Tensor, puts: list[Put]) -> Tensor:
    """The whole model with the values written by plain taps, one prompt at a time."""

    def writer(put: Put):
        def write(value: Tensor, _: TapCall) -> Tensor:
            new = value.clone()
            columns = slice(None) if put.slot.columns is None else put.slot.columns
            new[:, put.position, columns] = put.value
            return new

        return write

    with torch.no_grad(), model.tapped([(put.slot.point, writer(put)) for put in puts]):
        return model.logits(ids[None])[0, -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_place_and_token_equals_the_whole_model(family: str) -> None:
    model = load_model(tiny_model(family), check=False)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (LENGTH,), generator=generator)
    copies = []
    for layer in range(N_LAYERS):
        for place in places(model, layer):
            for position in (0, 3, LENGTH - 1):
                own = slot(model, place)
                width = model.d_model if own.columns is None else len(own.columns)
                value = torch.randn(width, generator=generator)
                copies.append([Put(own, position, value)])
    copies += [[*copies[7], *copies[40]], [*copies[60], *copies[3], *copies[20]]]
    (run,) = record(model, ids[None])

    patched = patched_logits(run, copies, tokens_at_once=40)

    wanted = torch.stack([naive(model, ids, list(copy)) for copy in copies])
    assert patched.note == ""
    assert torch.allclose(patched.logits, wanted, atol=2e-5)
    assert not torch.allclose(wanted, run.logits.expand_as(wanted), atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_residual_sweep_equals_interventions_one_by_one(family: str) -> None:
    """The last block computes one token only when nothing inside it is patched."""
    model = load_model(tiny_model(family), check=False)
    ids = torch.arange(5, 5 + LENGTH)
    vector = torch.linspace(-1, 1, model.d_model)
    cells = [(layer, position) for layer in range(N_LAYERS) for position in range(LENGTH)]
    (run,) = record(model, ids[None])
    copies = [[Put(slot(model, Site("resid_pre", row)), at, vector)] for row, at in cells]

    patched = patched_logits(run, copies).logits

    for (layer, position), got in zip(cells, patched, strict=True):
        edit = Intervention(Site("resid_pre", layer), Set(vector), token(position))
        wanted = run_edited(model, ids[None], [edit]).logits[0, -1]
        assert torch.allclose(got, wanted, atol=2e-5)


def test_half_precision_resumes_too() -> None:
    model = load_model(tiny_model("llama", dtype=torch.bfloat16), check=False)
    (run,) = record(model, torch.arange(5, 12)[None])
    own = slot(model, Site("resid_pre", 1))
    patched = patched_logits(run, [[Put(own, 4, torch.ones(model.d_model))], []])
    assert patched.note == ""
    assert run.is_own(patched.logits[1])


def test_a_model_that_cannot_resume_is_run_as_a_whole_and_says_so() -> None:
    model = load_model(tiny_model("llama"), check=False)
    (run,) = record(model, torch.arange(5, 12)[None])
    copies = [[Put(slot(model, Site("resid_pre", 1)), 4, torch.ones(model.d_model))]]
    wanted = patched_logits(run, copies).logits
    for arguments in run.arguments:  # as if a family rotated otherwise than we think
        cos, sin = arguments["position_embeddings"]
        arguments["position_embeddings"] = (cos.roll(1, dims=-2), sin)

    patched = patched_logits(run, copies)

    assert patched.note.startswith("run as a whole")
    assert torch.allclose(patched.logits, wanted, atol=2e-5)


def test_no_hook_stays() -> None:
    model = load_model(tiny_model("llama"), check=False)
    (run,) = record(model, torch.arange(5, 12)[None])
    patched_logits(run, [[Put(slot(model, Site("attn_out", 1)), 4, torch.ones(model.d_model))]])
    hooks = [
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model.module.modules()
    ]
    assert sum(hooks) == 0
