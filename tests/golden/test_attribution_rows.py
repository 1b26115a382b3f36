"""Every row of the attribution matrix against an oracle: the real modules, perturbed.

The oracle adds one source at a time to the running Hugging Face model, with attention patterns,
norm scales and MLP outputs held at their recorded values, and reads what changes at each target.
The map is affine, so a finite difference is exact.
"""

import numpy as np
import pytest
import torch

from pellucid.attribution.checks.measure import frozen_taps
from pellucid.attribution.columns import SourceTable
from pellucid.attribution.explain import TopLogits, explained
from pellucid.attribution.linearise import LinearModel, linearise
from pellucid.attribution.sweep import attribution_rows
from pellucid.attribution.targets import concatenate, feature_targets
from pellucid.core.types import Site
from pellucid.models.load import load_model
from pellucid.replacement.local import local_replacement
from support.tiny_dictionaries import BASES, relu, tiny_basis
from support.tiny_models import FAMILIES, tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]
Source = dict[Site, tuple[int, torch.Tensor]]


def linear_model(
    family: str, *, dtype: torch.dtype, basis: str = "plt", dense: bool = False
) -> LinearModel:
    model = load_model(tiny_model(family, dtype=dtype), word_tokenizer())
    dictionaries, missing = tiny_basis(model, basis, relu() if dense else None)
    return linearise(local_replacement(model, model.encode_ids(PROMPT), dictionaries, missing))


def all_targets(linear: LinearModel):
    last = len(PROMPT)  # a special token comes first
    logits = explained(linear, [TopLogits(max_logits=4, probability_mass=1.0)], last)
    parts = [logits.targets]
    for layer, local in enumerate(linear.local.layers):
        parts.append(feature_targets(linear, layer, torch.arange(len(local.active))))
    return logits, concatenate(parts)


def swept_matrix(linear: LinearModel) -> torch.Tensor:
    table = SourceTable(linear)
    _, targets = all_targets(linear)
    matrix = torch.zeros(len(targets), table.size, dtype=linear.tokens.dtype)
    for block in attribution_rows(linear, table, targets):
        matrix[block.rows[:, None], block.columns] = block.weights
    return matrix


def all_sources(linear: LinearModel) -> list[Source]:
    """What every feature, error and token writes, and where, in column order."""
    local, sources = linear.local, []
    for layer, part in enumerate(local.layers):
        active = part.active
        written = {site: active.written(slot) for slot, site in local.slots(layer).items()}
        for position in range(len(local.run.ids)):
            for i in (active.positions == position).nonzero().squeeze(1).tolist():
                sources.append({site: (position, rows[i]) for site, rows in written.items()})
            sources.append({part.write_site: (position, part.error[position])})
    embedding = local.run.model.token_embedding(local.run.ids)
    return sources + [{Site("embed"): (p, vector)} for p, vector in enumerate(embedding)]


def oracle_matrix(linear: LinearModel) -> torch.Tensor:
    """Effects of all features, errors and tokens, in column order, on all targets."""
    logits, _ = all_targets(linear)
    values = frozen_values(linear, all_sources(linear), logits.index)
    return (values[1:] - values[0]).T


def adding(sources: list[Source], site: Site):
    """A tap that adds, in row i + 1, what source i writes to the site."""
    mine = [(i + 1, *source[site]) for i, source in enumerate(sources) if site in source]

    def add(value, _call):
        changed = value.clone()
        for row, position, vector in mine:
            changed[row, position] += vector
        return changed

    return add


def frozen_values(linear: LinearModel, sources: list[Source], tokens: list[int]) -> torch.Tensor:
    """Target values with nothing added (row 0) and with each source added once."""
    local, model = linear.local, linear.local.run.model
    rows = len(sources) + 1
    read: dict[int, torch.Tensor] = {}
    embed = Site("embed")  # the very place of resid_pre@0: written before anything reads it
    taps = [(embed, adding(sources, embed))]
    for layer, part in enumerate(local.layers):

        def keep(value, _call, layer=layer):
            read[layer] = value.clone()

        taps.append((part.read_site, keep))
    taps += frozen_taps(local)
    sites = dict.fromkeys(site for source in sources for site in source if site != embed)
    taps += [(site, adding(sources, site)) for site in sites]
    with model.tapped(taps):
        output = model.forward(local.run.ids.expand(rows, -1)).logits
    logits = uncapped(model, output)[:, -1]
    columns = [logits[:, tokens] - logits.mean(1, keepdim=True)]
    for layer, part in enumerate(local.layers):
        vectors, _ = part.active.read(torch.arange(len(part.active)))
        columns.append(torch.einsum("bnd,nd->bn", read[layer][:, part.active.positions], vectors))
    return torch.cat(columns, dim=1)


def uncapped(model, logits: torch.Tensor) -> torch.Tensor:
    cap = model.logit_softcap
    return logits if cap is None else cap * torch.atanh(logits / cap)


PARALLEL = ("gpt_neox",)


def bases_of(family: str) -> list[str]:
    return [basis for basis in BASES if not (basis == "clt-mid" and family in PARALLEL)]


CASES = [(family, basis) for family in FAMILIES for basis in bases_of(family)]


@pytest.mark.parametrize(("family", "basis"), CASES)
def test_rows_equal_perturbations_and_sum_to_their_targets(family, basis):
    linear = linear_model(family, dtype=torch.float64, basis=basis)
    swept = swept_matrix(linear)
    expected = oracle_matrix(linear)
    ours = swept[:, : expected.shape[1]]
    scale = expected.abs().amax(dim=1, keepdim=True)
    assert (scale > 0).all()
    assert float(((ours - expected).abs() / scale).max()) <= 1e-6
    value = all_targets(linear)[1].value
    # transformers computes RMS norms in float32 whatever the dtype of the model is
    assert float(((swept.sum(dim=1) - value).abs() / swept.abs().sum(dim=1)).max()) <= 1e-5


@pytest.mark.parametrize("basis", ["plt", "clt", "mixed"])
def test_rows_sum_to_their_targets_in_float32(basis):
    linear = linear_model("qwen3", dtype=torch.float32, basis=basis)
    value = all_targets(linear)[1].value
    assert float(((swept_matrix(linear).sum(dim=1) - value).abs() / value.abs()).max()) <= 1e-4


@pytest.mark.parametrize("basis", ["skip", "clt", "clt-skip", "sae", "mixed"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_rows_hold_when_positions_have_different_numbers_of_features(family, basis):
    linear = linear_model(family, dtype=torch.float64, basis=basis, dense=True)
    expected = oracle_matrix(linear)
    ours = swept_matrix(linear)[:, : expected.shape[1]]
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9)


def test_chunks_do_not_change_rows(monkeypatch):
    linear = linear_model("llama", dtype=torch.float64, basis="skip", dense=True)
    whole = swept_matrix(linear)
    monkeypatch.setattr("pellucid.attribution.sweep.MOST_ROWS", 3)
    monkeypatch.setattr("pellucid.attribution.sweep.CAUSAL_BLOCK", 2)
    torch.testing.assert_close(swept_matrix(linear), whole)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_long_prompts_whose_attended_tokens_are_not_stored_have_the_same_rows(family, monkeypatch):
    stored = linear_model(family, dtype=torch.float64, basis="skip", dense=True)
    monkeypatch.setattr("pellucid.attribution.linearise.LONGEST_ATTENDED", len(PROMPT))
    pulled = linear_model(family, dtype=torch.float64, basis="skip", dense=True)
    assert stored.attended is not None and pulled.attended is None
    torch.testing.assert_close(swept_matrix(pulled), swept_matrix(stored))
