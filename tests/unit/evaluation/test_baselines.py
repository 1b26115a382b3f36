"""Baselines against NumPy's least squares, and each fitted on the text it was given."""

import numpy as np
import pytest
import torch

from pellucid.core.types import Site
from pellucid.dictionaries.activations import TopK
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.evaluation.baselines import BASELINES, fit_baselines
from pellucid.evaluation.rows import EvaluationRows
from pellucid.harvest.fidelity import LayerFidelity
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from support.tiny_dictionaries import tiny_transcoders
from support.tiny_models import tiny_model, word_tokenizer
from support.word_text import word_documents

L0 = 3.4


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    tokenizer = word_tokenizer()
    return load_model(tiny_model("llama", tokenizer=tokenizer), tokenizer)


@pytest.fixture(scope="module")
def rows(model: LanguageModel) -> EvaluationRows:
    return EvaluationRows(TextList(word_documents(60)), model, tokens=600)


@pytest.fixture(scope="module")
def dictionaries(model: LanguageModel) -> DictionarySet:
    return tiny_transcoders(model)


@pytest.fixture(scope="module")
def fitted(dictionaries: DictionarySet, rows: EvaluationRows) -> dict:
    fidelity = [
        LayerFidelity(layer=layer, fvu=0.5, l0=L0, dead=0.0) for layer in dictionaries.layers
    ]
    return fit_baselines(dictionaries, fidelity, rows, seed=0)


def mlp_values(rows: EvaluationRows, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    sites = [Site("mlp_in", layer), Site("mlp_out", layer)]
    batches = list(rows.activations(sites))
    x, y = (torch.cat([batch.values[site] for batch in batches]) for site in sites)
    return x, y


def test_every_baseline_covers_every_layer(fitted: dict, dictionaries: DictionarySet) -> None:
    assert tuple(fitted) == BASELINES
    assert all(list(functions) == dictionaries.layers for functions in fitted.values())


@pytest.mark.parametrize("layer", [0, 2])
def test_zero_and_mean_are_constants(fitted: dict, rows: EvaluationRows, layer: int) -> None:
    x, y = mlp_values(rows, layer)
    assert not fitted["zero"][layer](x).any()
    torch.testing.assert_close(fitted["mean"][layer](x), y.mean(dim=0).expand(len(x), -1))


@pytest.mark.parametrize("layer", [0, 2])
def test_linear_is_the_least_squares_map(fitted: dict, rows: EvaluationRows, layer: int) -> None:
    x, y = mlp_values(rows, layer)
    design = np.c_[x.numpy(), np.ones(len(x))].astype(np.float64)
    solution, *_ = np.linalg.lstsq(design, y.numpy().astype(np.float64))
    best = ((design @ solution - y.numpy()) ** 2).sum()
    ours = float((fitted["linear"][layer](x) - y).double().square().sum())
    assert best <= ours <= best * 1.001


@pytest.mark.parametrize("layer", [0, 2])
def test_random_has_matched_size_and_the_best_scale_and_bias(
    fitted: dict, rows: EvaluationRows, dictionaries: DictionarySet, layer: int
) -> None:
    random = fitted["random"][layer]
    assert isinstance(random.activation, TopK)
    assert random.activation.k == round(L0)
    assert random.num_features == dictionaries[layer].num_features
    torch.testing.assert_close(random.W_enc.norm(dim=1), torch.ones(random.num_features))
    lengths = random.W_dec.norm(dim=1)
    torch.testing.assert_close(lengths, lengths.mean().expand_as(lengths))

    x, y = mlp_values(rows, layer)
    output = random(x)
    error = (output - y).double()
    assert float(error.mean(dim=0).abs().max()) < 1e-5
    # At the least-squares scale the error is orthogonal to what the scale multiplies.
    centred = (output - output.mean(dim=0)).double()
    cosine = (error * centred).sum() / (error.norm() * centred.norm())
    assert abs(float(cosine)) < 1e-4


def test_random_depends_on_the_seed_alone(
    dictionaries: DictionarySet, rows: EvaluationRows, fitted: dict
) -> None:
    fidelity = [
        LayerFidelity(layer=layer, fvu=0.5, l0=L0, dead=0.0) for layer in dictionaries.layers
    ]
    again = fit_baselines(dictionaries, fidelity, rows, seed=0)["random"][1]
    other = fit_baselines(dictionaries, fidelity, rows, seed=1)["random"][1]
    assert torch.equal(again.W_enc, fitted["random"][1].W_enc)
    assert not torch.equal(other.W_enc, fitted["random"][1].W_enc)
