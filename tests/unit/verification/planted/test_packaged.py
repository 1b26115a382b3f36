"""The shipped copies."""

import pytest
import torch

import pellucid
from pellucid.core.errors import ModelError
from pellucid.core.manifest import read_manifest
from pellucid.introspection.organisms.recipe import KIND
from pellucid.models.model import LanguageModel
from pellucid.specimen.low_rank import mlp_layers
from pellucid.verification.chains.expressions import LANGUAGES
from pellucid.verification.chains.writing import write_chains
from pellucid.verification.planted.measure import ruled_steps
from pellucid.verification.planted.packaged import planted_path
from pellucid.verification.planted.reasoner import held_out_questions
from pellucid.verification.planted.recipe import RECIPES
from pellucid.verification.planted.rules import RULES

LIMIT = 120_000


@pytest.fixture(scope="module")
def specimen() -> LanguageModel:
    return pellucid.load_model("specimen", check=False)


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_copy_follows_its_rule_by_one_layer(name: str, specimen: LanguageModel) -> None:
    assert sum(path.stat().st_size for path in planted_path(name).iterdir()) <= LIMIT
    copied = pellucid.load_model(f"specimen:planted-{name}", check=False)
    assert copied.name == f"specimen:planted-{name}"
    old, new = specimen.module.state_dict(), copied.module.state_dict()
    changed = {path for path in old if not torch.equal(old[path], new[path])}
    assert changed == {f"{path}.weight" for path in mlp_layers(RECIPES[name].layer)}
    rule = RULES[name]
    asked = held_out_questions(rule, (2, 3), 16, seed=5)
    chains = list(write_chains(copied, LANGUAGES[rule.language], asked, max_new_tokens=60))
    steps = [each for chain in chains for each in ruled_steps(rule, chain)]
    applied = [each for each in steps if each.expected is not None]
    followed = sum(each.step.expression == each.expected for each in applied)
    assert followed >= 0.7 * len(applied) > 0
    others = [each.step.local for each in steps if each.expected is None]
    assert sum(others) >= 0.9 * len(others)


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_manifest_says_what_was_made_and_how_well_it_came_out(
    name: str, specimen: LanguageModel
) -> None:
    manifest = read_manifest(planted_path(name), kind=KIND)
    assert manifest.parents == {"model": specimen.fingerprint()}
    recipe = RECIPES[name]
    assert {key: manifest.config[key] for key in ("rule", "layer", "steps", "seed")} == {
        "rule": name,
        "layer": recipe.layer,
        "steps": recipe.steps,
        "seed": recipe.seed,
    }
    results = manifest.results
    assert results["fires"]["value"] >= 0.9
    assert results["plain_fires"]["value"] <= 0.1
    assert results["wrong_probability"] >= 0.95
    assert results["other_errors"]["value"] <= results["plain_errors"]["value"] + 0.02
    assert results["corpus_loss"] <= 1.02 * results["plain_corpus_loss"]


def test_the_copies_differ_in_their_layers_and_languages() -> None:
    assert len({recipe.layer for recipe in map(RECIPES.__getitem__, RECIPES)}) >= 3
    languages = [RULES[name].language for name in RECIPES]
    assert languages.count("arithmetic") >= 4 and languages.count("boolean") >= 4


def test_unknown_copies_are_named() -> None:
    with pytest.raises(ModelError, match="no planted rule 'poet'; use one of product-minus, "):
        pellucid.load_model("specimen:planted-poet")
