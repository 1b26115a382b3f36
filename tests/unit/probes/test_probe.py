import numpy as np
import pytest
import torch

from pellucid.core.errors import CheckpointError, ConfigError, DataError
from pellucid.core.types import Site
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.probes.fit import Line
from pellucid.probes.probe import Probe, load_probe, save_probe
from pellucid.probes.reading import read_features, read_sites
from support.tiny_dictionaries import relu, tiny_transcoders
from support.tiny_models import tiny_model

PROMPTS = [[1, 5, 9, 13], [1, 7], [1, 20, 21, 22, 23, 24], [8, 9, 10]]
SITES = [Site("resid_post", 1), Site("mlp_in", 2)]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model(tiny_model("llama"))


@pytest.mark.parametrize("tokens", ["last", "mean", "max"])
def test_a_batch_reads_what_single_prompts_do(model: LanguageModel, tokens: str) -> None:
    found = read_sites(model, PROMPTS, SITES, tokens=tokens)
    for row, prompt in enumerate(PROMPTS):
        values = model.activations(torch.tensor([prompt]), SITES)
        for site in SITES:
            counted = values[site][0, 1 if prompt[0] == 1 else 0 :]
            expected = {"last": counted[-1], "mean": counted.mean(0), "max": counted.amax(0)}
            torch.testing.assert_close(found[site][row], expected[tokens])


@pytest.mark.parametrize("tokens", ["last", "mean", "max"])
@pytest.mark.parametrize("activation", [None, relu()])
def test_features_are_those_of_the_dense_codes(model, tokens, activation) -> None:
    dictionaries = tiny_transcoders(model, activation=activation)
    found = read_features(model, PROMPTS, dictionaries, layers=[0, 2], tokens=tokens)
    assert sorted(found) == [0, 2]
    for row, prompt in enumerate(PROMPTS):
        for layer in found:
            site = dictionaries[layer].read_site
            x = model.activations(torch.tensor([prompt]), [site])[site][0]
            counted = dictionaries[layer].encode(x).dense()[1 if prompt[0] == 1 else 0 :]
            expected = {"last": counted[-1], "mean": counted.mean(0), "max": counted.amax(0)}
            torch.testing.assert_close(found[layer][row], expected[tokens], atol=1e-5, rtol=1e-4)


def test_a_probe_comes_back_from_its_folder_and_scores_the_same(model, tmp_path) -> None:
    line = Line(np.linspace(-1, 1, model.d_model), 0.25, 0.1)
    probe = Probe.of(SITES[0], line, tokens="mean", method="logistic").at(0.75)
    save_probe(tmp_path / "probe", probe, model_fingerprint=model.fingerprint())
    again = load_probe(tmp_path / "probe", model)
    assert (again.site, again.bias, again.threshold, again.tokens) == (SITES[0], 0.25, 0.75, "mean")
    assert again.provenance == {"method": "logistic"}
    np.testing.assert_array_equal(again.scores(model, PROMPTS), probe.scores(model, PROMPTS))
    x = read_sites(model, PROMPTS, SITES[:1], tokens="mean")[SITES[0]].numpy()
    np.testing.assert_allclose(probe.scores(model, PROMPTS), line(x), rtol=1e-5)


def test_a_probe_of_another_model_is_refused(model, tmp_path) -> None:
    probe = Probe(site=SITES[0], vector=torch.ones(model.d_model))
    save_probe(tmp_path / "probe", probe, model_fingerprint="0123")
    with pytest.raises(CheckpointError, match="fitted on another model"):
        load_probe(tmp_path / "probe", model)


def test_bad_probes_and_prompts_are_refused(model) -> None:
    ones = torch.ones(model.d_model)
    with pytest.raises(ConfigError, match="threshold of a probe is nan"):
        Probe(site=SITES[0], vector=ones).at(float("nan"))
    with pytest.raises(ConfigError, match="values that are not finite"):
        Probe(site=SITES[0], vector=ones / 0)
    with pytest.raises(ConfigError, match="tokens is 'first'"):
        Probe(site=SITES[0], vector=ones, tokens="first")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="width 3"):
        Probe(site=SITES[0], vector=torch.ones(3)).scores(model, PROMPTS)
    with pytest.raises(DataError, match="no prompts"):
        read_sites(model, [], SITES)
