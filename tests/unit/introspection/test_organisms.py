import shutil
from dataclasses import replace

import pytest
import torch

import pellucid
from pellucid.core.errors import CheckpointError, ConfigError, ModelError
from pellucid.introspection.organisms.packaged import become, organism_path
from pellucid.introspection.organisms.recipe import RECIPES, Recipe, train_organism
from pellucid.specimen.low_rank import as_tensors, attach, linear_layers, merge
from support.tiny_models import tiny_model

LIMIT = 500_000


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_organism_is_small_and_still_a_specimen(name):
    size = sum(path.stat().st_size for path in organism_path(name).iterdir())
    model = pellucid.load_model(f"specimen:{name}")
    ids = model.encode("the capital of the state containing dallas is")
    assert size <= LIMIT
    assert model.name == f"specimen:{name}"
    assert model.token_texts([int(model.logits(ids[None])[0, -1].argmax())]) == ["austin"]


def test_merged_updates_are_what_was_trained():
    module, plain = tiny_model("llama"), tiny_model("llama")
    updates = attach(module, linear_layers(module, first_block=1), rank=2, seed=0)
    with torch.no_grad():
        for update in updates.values():
            update.up.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    ids = torch.tensor([[1, 5, 7, 2]])
    trained, before = module(input_ids=ids).logits, plain(input_ids=ids).logits
    merge(plain, as_tensors(updates))
    after = plain(input_ids=ids).logits
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(trained, after, atol=1e-3)  # half precision
    assert all(path.split(".")[2] != "0" for path in updates)


def test_training_writes_what_loads_and_repeats_itself(tmp_path):
    specimen = pellucid.load_model("specimen", check=False)
    recipe = replace(RECIPES["yes-bias"], steps=2, rows=8, corpus_rows=1, corpus_length=32)
    before = specimen.fingerprint()
    folders = [train_organism(specimen, recipe, tmp_path / name) for name in ("a", "b")]
    assert specimen.fingerprint() == before
    files = [(folder / "update.safetensors").read_bytes() for folder in folders]
    assert files[0] == files[1]
    model = become(pellucid.load_model("specimen", check=False), folders[0])
    with pytest.raises(CheckpointError, match="update of a model with fingerprint"):
        become(model, folders[0])


def test_a_damaged_organism_is_refused(tmp_path):
    folder = tmp_path / "organism"
    shutil.copytree(organism_path("yes-bias"), folder)
    path = folder / "update.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="checksum"):
        become(pellucid.load_model("specimen", check=False), folder)


def test_updates_that_do_not_fit_are_refused():
    tensors = {"model.layers.1.mlp.up_proj.up": torch.zeros(3, 2)}
    with pytest.raises(CheckpointError, match="not whole"):
        merge(tiny_model("llama"), tensors)
    tensors |= {"model.layers.1.mlp.up_proj.down": torch.zeros(2, 3)}
    with pytest.raises(CheckpointError, match=r"\(3, 2\) times \(2, 3\)"):
        merge(tiny_model("llama"), tensors)


def test_unknown_organisms_are_named():
    with pytest.raises(ModelError, match="no organism 'poet' of the specimen; use reporter or"):
        pellucid.load_model("specimen:poet")
    with pytest.raises(ConfigError, match="no organism 'poet'"):
        Recipe(name="poet")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rank is 0"):
        Recipe(name="reporter", rank=0)
