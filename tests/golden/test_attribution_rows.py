"""Every row of the attribution matrix against an oracle: the real modules, perturbed.

The oracle adds one source at a time to the running Hugging Face model, with attention patterns,
norm scales and MLP outputs held at their recorded values, and reads what changes at each target.
The map is affine, so a finite difference is exact.
"""

import numpy as np
import pytest
import torch

from pellucid.attribution.linearise import LinearModel, linearise
from pellucid.attribution.measure import frozen_taps
from pellucid.attribution.sweep import SourceTable, attribution_rows
from pellucid.attribution.targets import concatenate, feature_targets, logit_targets
from pellucid.core.types import Site
from pellucid.models.load import load_model
from pellucid.replacement.model import ReplacementModel
from support.tiny_dictionaries import relu, tiny_transcoders
from support.tiny_models import FAMILIES, tiny_model, word_tokenizer

PROMPT = [11, 42, 7, 42, 30]


def linear_model(family: str, *, dtype: torch.dtype, skip: bool, dense: bool) -> LinearModel:
    model = load_model(tiny_model(family, dtype=dtype), word_tokenizer())
    dictionaries = tiny_transcoders(model, skip=skip, activation=relu() if dense else None)
    return linearise(ReplacementModel(model, dictionaries).local(model.encode_ids(PROMPT)))


def all_targets(linear: LinearModel):
    logits = logit_targets(linear, max_logits=4, probability_mass=1.0)
    parts = [logits.targets]
    for layer, local in enumerate(linear.local.layers):
        parts.append(feature_targets(linear, layer, torch.arange(len(local.features))))
    return logits, concatenate(parts)


def swept_matrix(linear: LinearModel) -> torch.Tensor:
    table = SourceTable(linear)
    _, targets = all_targets(linear)
    matrix = torch.zeros(len(targets), table.size, dtype=linear.tokens.dtype)
    for block in attribution_rows(linear, table, targets):
        matrix[block.rows[:, None], block.columns] = block.weights
    return matrix


def oracle_matrix(linear: LinearModel) -> torch.Tensor:
    """Effects of all features, errors and tokens, in column order, on all targets."""
    local, model = linear.local, linear.local.run.model
    n_positions = len(local.run.ids)
    sources: list[tuple[Site, int, torch.Tensor]] = []
    for layer, block in enumerate(linear.blocks):
        dictionary, part = local.dictionaries[layer], local.layers[layer]
        for position in range(n_positions):
            here = part.positions == position
            for feature, value in zip(part.features[here], part.activations[here], strict=True):
                vector = dictionary.W_dec[feature] * value
                sources.append((Site("mlp_out", layer), position, vector))
            sources.append((Site("mlp_out", layer), position, part.error[position]))
        assert len(block.written) == n_positions
    embedding = model.token_embedding(local.run.ids)
    sources += [(Site("embed"), position, embedding[position]) for position in range(n_positions)]

    logits, _ = all_targets(linear)
    values = frozen_values(linear, sources, logits.tokens)
    return (values[1:] - values[0]).T


def frozen_values(linear, sources, tokens) -> torch.Tensor:
    """Target values with nothing added (row 0) and with each source added once."""
    local, model = linear.local, linear.local.run.model
    rows = len(sources) + 1
    taps = frozen_taps(local)
    for site in dict.fromkeys(site for site, _, _ in sources):
        mine = [(i + 1, p, v) for i, (s, p, v) in enumerate(sources) if s == site]

        def add(value, _call, mine=mine):
            changed = value.clone()
            for row, position, vector in mine:
                changed[row, position] += vector
            return changed

        taps.append((site, add))
    read: dict[int, torch.Tensor] = {}
    for layer in range(model.n_layers):

        def keep(value, _call, layer=layer):
            read[layer] = value.clone()

        taps.append((Site("mlp_in", layer), keep))
    with model.tapped(taps):
        output = model.forward(local.run.ids.expand(rows, -1)).logits
    logits = uncapped(model, output)[:, -1]
    columns = [logits[:, tokens] - logits.mean(1, keepdim=True)]
    for layer, part in enumerate(local.layers):
        dictionary = local.dictionaries[layer]
        encoder = dictionary.W_enc[part.features]
        columns.append(torch.einsum("bnd,nd->bn", read[layer][:, part.positions], encoder))
    return torch.cat(columns, dim=1)


def uncapped(model, logits: torch.Tensor) -> torch.Tensor:
    cap = model.logit_softcap
    return logits if cap is None else cap * torch.atanh(logits / cap)


@pytest.mark.parametrize("skip", [False, True], ids=["plt", "skip"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_perturbations_under_the_full_freeze(family, skip):
    linear = linear_model(family, dtype=torch.float64, skip=skip, dense=False)
    swept = swept_matrix(linear)
    expected = oracle_matrix(linear)
    ours = swept[:, : expected.shape[1]]
    scale = expected.abs().amax(dim=1, keepdim=True)
    assert float(((ours - expected).abs() / scale).max()) <= 1e-6
    assert (scale > 0).all()


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_rows_hold_when_positions_have_different_numbers_of_features(family):
    linear = linear_model(family, dtype=torch.float64, skip=True, dense=True)
    expected = oracle_matrix(linear)
    ours = swept_matrix(linear)[:, : expected.shape[1]]
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("skip", [False, True], ids=["plt", "skip"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_sum_to_the_targets_value_in_float32(family, skip):
    linear = linear_model(family, dtype=torch.float32, skip=skip, dense=False)
    _, targets = all_targets(linear)
    total = swept_matrix(linear).double().sum(dim=1)
    value = targets.value.double()
    assert float(((total - value).abs() / value.abs()).max()) <= 1e-4


def test_chunks_do_not_change_rows(monkeypatch):
    linear = linear_model("llama", dtype=torch.float64, skip=True, dense=True)
    whole = swept_matrix(linear)
    monkeypatch.setattr("pellucid.attribution.sweep.MOST_ROWS", 3)
    torch.testing.assert_close(swept_matrix(linear), whole)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_long_prompts_whose_attended_tokens_are_not_stored_have_the_same_rows(family, monkeypatch):
    stored = linear_model(family, dtype=torch.float64, skip=True, dense=True)
    monkeypatch.setattr("pellucid.attribution.linearise.LONGEST_ATTENDED", len(PROMPT))
    pulled = linear_model(family, dtype=torch.float64, skip=True, dense=True)
    assert stored.attended is not None and pulled.attended is None
    torch.testing.assert_close(swept_matrix(pulled), swept_matrix(stored))
