"""SAE-targeted steering where the map from vectors to features is known."""

import pytest
import torch

from pellucid.core.errors import InterventionError
from pellucid.core.types import Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.dictionaries.sae import SAE
from pellucid.interventions.steering.targeted import EffectMap, measure_effects
from pellucid.interventions.where import at, window
from pellucid.models.model import LanguageModel
from support.tiny_dictionaries import relu, tiny_transcoders

SITE = Site("resid_post", 1)


def always_active(features: int = 6) -> DictionarySet:
    """A dictionary whose features are all far above zero: activations are affine in the input."""
    draw = torch.Generator().manual_seed(0)
    dictionary = SAE(
        W_enc=torch.randn(features, 32, generator=draw),
        b_enc=torch.full((features,), 1e3),
        W_dec=torch.randn(features, 32, generator=draw),
        b_dec=torch.zeros(32),
        activation=relu(),
        read_site=SITE,
        write_site=SITE,
    )
    return DictionarySet("affine", {1: dictionary})


def test_the_map_of_an_affine_dictionary_is_its_encoder(tiny: LanguageModel) -> None:
    dictionaries = always_active()
    found = measure_effects(tiny, dictionaries, 1, SITE, ["w5 w6", "w7"], vectors=80)
    torch.testing.assert_close(found.weights.T, dictionaries[1].W_enc.data, atol=5e-3, rtol=1e-3)
    assert found.r2 > 0.999
    assert found.bias.abs().max() < 0.05
    vector = torch.randn(32, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        found.effects(vector), dictionaries[1].W_enc @ vector, atol=0.1, rtol=1e-2
    )


def effect_map(weights: torch.Tensor) -> EffectMap:
    return EffectMap(
        site=SITE,
        layer=2,
        weights=weights,
        bias=torch.zeros(weights.shape[1]),
        r2=1.0,
        where=window(-1),
        provenance={},
    )


def test_the_solution_moves_the_target_and_nothing_else() -> None:
    weights = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
    vector = effect_map(weights).solve({3: 1.0}, ridge=1e-9)
    moved = vector.vector @ weights
    assert vector.norm == pytest.approx(1.0)
    assert moved[3] > 0
    assert (moved / moved[3])[[0, 1, 2, 4]].abs().max() < 1e-4
    assert (vector.method, vector.where) == ("sae-ts", window(-1))


def test_with_a_large_ridge_it_is_the_maps_own_column() -> None:
    weights = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
    vector = effect_map(weights).solve({3: 1.0}, ridge=1e9)
    torch.testing.assert_close(vector.vector, weights[:, 3] / weights[:, 3].norm())


def test_the_solution_is_that_of_least_squares() -> None:
    weights = torch.randn(4, 9, generator=torch.Generator().manual_seed(3)).double()
    ridge = 0.7
    price = (ridge * (weights @ weights.T).diagonal().mean()) ** 0.5
    stacked = torch.cat([weights.T, price * torch.eye(4, dtype=torch.float64)])
    wanted = torch.zeros(13, dtype=torch.float64)
    wanted[[1, 6]] = torch.tensor([1.0, -2.0], dtype=torch.float64)
    expected = torch.linalg.lstsq(stacked, wanted[:, None]).solution[:, 0]
    found = effect_map(weights.float()).solve({1: 1.0, 6: -2.0}, ridge=ridge)
    torch.testing.assert_close(found.vector.double(), expected / expected.norm(), atol=1e-5, rtol=0)


def test_effects_that_cannot_be_had(tiny: LanguageModel) -> None:
    weights = torch.zeros(4, 3)
    weights[0, 0] = 1.0
    with pytest.raises(InterventionError, match=r"no vector .* moves features \[2\]"):
        effect_map(weights).solve({2: 1.0})
    with pytest.raises(InterventionError, match=r"feature 3 is out of range.*0 to 2"):
        effect_map(weights).solve({3: 1.0})
    with pytest.raises(InterventionError, match="do not change the features of layer 0"):
        measure_effects(tiny, tiny_transcoders(tiny), 0, SITE, ["w5"], vectors=4, where=at(-1))
