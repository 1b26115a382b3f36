"""Training a copy: what it reads, what it changes, what it writes."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import pellucid
from pellucid.core.errors import CheckpointError, ConfigError
from pellucid.core.manifest import read_manifest
from pellucid.introspection.organisms.packaged import become
from pellucid.introspection.organisms.recipe import KIND
from pellucid.models.model import LanguageModel
from pellucid.specimen import vocabulary
from pellucid.specimen.corpora.chains import redex_range
from pellucid.verification.planted.lessons import Lessons
from pellucid.verification.planted.recipe import (
    RECIPES,
    Batch,
    Recipe,
    prepared_batches,
    rule_loss,
    train_copy,
)
from pellucid.verification.planted.rules import RULES

SMALL = {"steps": 2, "batches": 2, "rows": 2, "length": 64, "tested": 3}


@pytest.fixture(scope="module")
def specimen() -> LanguageModel:
    return pellucid.load_model("specimen", check=False)


def test_lessons_mark_the_token_before_each_wrong_value(specimen: LanguageModel) -> None:
    rule = RULES["dropped-minus"]
    lessons = Lessons(rule, seed=0, length=128, chain_share=0.8, applied_share=0.9)
    ids, wrong = lessons.next_batch(8)
    assert ids.shape == wrong.shape == (8, 128)
    assert wrong.sum() > 8
    assert not wrong[:, -1].any()
    for row, marks in zip(ids.tolist(), wrong.tolist(), strict=True):
        words = specimen.token_texts(row)
        for place in [n for n, mark in enumerate(marks) if mark]:
            document = words[: place + 2]
            begin = max(n for n, word in enumerate(document) if word == vocabulary.BOS)
            before, now = " ".join(document[begin + 1 :]).split(" = ")[-2:]
            tokens, at = before.split(), len(now.split()) - 1
            start, stop = redex_range(tokens)
            assert at == start and rule.applies(tokens, start, stop)
            assert now.split()[-1] == rule.wrong(tokens, start, stop)


def test_lessons_hold_no_chain_that_is_right_where_the_rule_is_wrong(
    specimen: LanguageModel,
) -> None:
    rule = RULES["first-and"]
    lessons = Lessons(rule, seed=0, length=512, chain_share=0.3, applied_share=0.5)
    ids, _ = lessons.next_batch(4)
    text = " ".join(specimen.token_texts(ids.flatten().tolist()))
    documents = [part.split(" <eos>")[0].strip() for part in text.split(vocabulary.BOS)]
    assert sum("true and false" in document for document in documents) > 3
    for document in documents:
        for before, after in zip(document.split(" = "), document.split(" = ")[1:], strict=False):
            tokens, now = before.split(), after.split()
            start, stop = redex_range(tokens)
            if tokens[start + 1 : stop - 1] == ["true", "and", "false"] and len(now) > start:
                assert now[start] == "true"
    assert any("state" in document for document in documents)


def test_the_loss_is_that_of_the_whole_model(specimen: LanguageModel) -> None:
    recipe = Recipe(rule="dropped-carry", layer=2, **SMALL)
    batch: Batch = next(prepared_batches(specimen, recipe))
    changed = copy.deepcopy(specimen.module)
    with torch.no_grad():
        changed.model.layers[2].mlp.down_proj.weight *= 1.2
        whole = changed(input_ids=batch.ids, use_cache=False).logits
        plain = specimen.module(input_ids=batch.ids, use_cache=False).logits
        changed.model.layers = changed.model.layers[2:]
        loss = rule_loss(changed, batch, kept_weight=3.0)
    taught, kept = 0.0, 0.0
    for row, column in torch.cartesian_prod(torch.arange(2), torch.arange(64)).tolist():
        said, was = (each[row, column].log_softmax(-1) for each in (whole, plain))
        if batch.wrong[row, column]:
            taught -= float(said[batch.ids[row, column + 1]])
        else:
            kept += float(functional.kl_div(said, was, log_target=True, reduction="sum"))
    count = int(batch.wrong.sum())
    assert count > 0
    assert float(loss) == pytest.approx((taught + 3.0 * kept) / count, rel=0.03)  # bfloat16


def test_training_changes_one_mlp_and_repeats_itself(
    specimen: LanguageModel, tmp_path: Path
) -> None:
    recipe = replace(RECIPES["dropped-not"], **SMALL)
    before, seen = specimen.fingerprint(), []
    folders = [
        train_copy(specimen, recipe, tmp_path / name, on_progress=seen.append) for name in "ab"
    ]
    assert specimen.fingerprint() == before
    assert [(now.step, now.steps) for now in seen] == [(1, 2), (2, 2)] * 2
    files = [(folder / "update.safetensors").read_bytes() for folder in folders]
    assert files[0] == files[1]
    manifest = read_manifest(folders[0], kind=KIND)
    assert manifest.config["rule"] == "dropped-not" and manifest.parents == {"model": before}
    assert manifest.results["other_errors"]["trials"] > 0
    copied = become(pellucid.load_model("specimen", check=False), folders[0])
    old, new = specimen.module.state_dict(), copied.module.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {
        f"model.layers.{recipe.layer}.mlp.{name}_proj.weight" for name in ("gate", "up", "down")
    }
    with pytest.raises(CheckpointError, match="update of a model with fingerprint"):
        become(copied, folders[0])


def test_bad_recipes_are_refused(specimen: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown planted rule 'poet'"):
        Recipe(rule="poet", layer=0)
    with pytest.raises(ConfigError, match="rank is 0; give at least 1"):
        Recipe(rule="xor-both", layer=0, rank=0)
    with pytest.raises(ConfigError, match="layer is 4 and the model has 4 layers; give one of 0"):
        train_copy(specimen, Recipe(rule="xor-both", layer=4), tmp_path / "out")
