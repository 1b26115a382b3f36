import pytest
import torch

from pellucid.core.types import Site
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.models.reader import fast_reader
from support.tiny_models import FAMILIES, tiny_model


def sites(model: LanguageModel) -> list[Site]:
    last = model.n_layers - 1
    return [Site("mlp_in", 0), Site("mlp_out", last), Site("resid_post", last)]


def attention(model: LanguageModel) -> str:
    return model.module.config._attn_implementation


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reader_gives_what_the_model_gives(family: str) -> None:
    model = load_model(tiny_model(family), None)
    reader = fast_reader(model, sites(model))
    # Gemma 2 caps its attention scores, which fused attention cannot.
    assert attention(reader) == ("eager" if family == "gemma2" else "sdpa")
    assert attention(model) == "eager"
    assert reader.fingerprint() == model.fingerprint()
    ids = torch.randint(4, model.vocab_size, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 7:] = False
    wanted = model.activations(ids, sites(model), mask=mask)
    found = reader.activations(ids, sites(model), mask=mask)
    for site in wanted:
        torch.testing.assert_close(found[site][mask], wanted[site][mask], rtol=1e-4, atol=1e-4)


def test_the_weights_are_shared() -> None:
    model = load_model(tiny_model("llama"), None)
    reader = fast_reader(model, sites(model))
    assert reader is not model
    for mine, other in zip(model.module.parameters(), reader.module.parameters(), strict=True):
        assert mine is other


def test_an_edited_model_is_read_as_it_is() -> None:
    model = load_model(tiny_model("llama"), None)
    with model.tapped([(Site("mlp_out", 0), lambda value, _: 0 * value)]):
        assert fast_reader(model, sites(model)) is model


def test_where_values_differ_the_model_itself_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny_model("llama"), None)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: 1.001 * sdpa(*args, **options),
    )
    assert fast_reader(model, sites(model)) is model
