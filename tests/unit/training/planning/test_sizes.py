"""The sizes of a plan are those of what a training really makes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.core.types import Site
from pellucid.distributed.layout import Layout
from pellucid.harvest.cache.writing import write_cache
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.text import TextList
from pellucid.models.load import load_model
from pellucid.models.model import LanguageModel
from pellucid.training import TrainConfig, train
from pellucid.training.planning import disk
from pellucid.training.planning.memory import process_memory, state_rows
from pellucid.training.planning.shape import ModelShape, Training
from pellucid.training.run import Run, RunPlan
from pellucid.training.run_checkpoint import save_checkpoint
from support.tiny_models import FAMILIES, N_LAYERS, tiny_model, word_tokenizer
from support.word_text import word_documents

KINDS = ("transcoder", "skip-transcoder", "sae", "clt")
ACTIVATIONS = ("topk", "batchtopk", "jumprelu", "relu")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    tokenizer = word_tokenizer()
    return load_model(tiny_model("llama", tokenizer=tokenizer), tokenizer)


def text() -> TextList:
    return TextList(word_documents(200, longest=30))


def planned(model: LanguageModel, cache: str | None = None, **settings: Any) -> Training:
    config = TrainConfig(**{"num_features": 96, "k": 4, "batch_tokens": 128} | settings)
    plan = RunPlan.of(model, config, tokens=512)
    sites = list(dict.fromkeys(site for pair in plan.sites.values() for site in pair))
    return Training(
        plan=plan,
        widths=dict.fromkeys(sites, model.d_model),
        model=ModelShape.of(model, sites, plan.harvest.context_length),
        cache=cache,
    )


def begun(model: LanguageModel, training: Training) -> Run:
    """The run, after its first step."""
    run = Run(training.plan, model, text(), training.plan.live(model, text()))
    run.advance()
    return run


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_state_is_what_a_run_checkpoints(
    model: LanguageModel, kind: str, activation: str, tmp_path: Path
) -> None:
    training = planned(model, kind=kind, activation=activation, average=0.9)
    saved = begun(model, training).checkpoint()
    real: dict[str, int] = {}
    for tensors in saved.tensors.values():
        for name, tensor in tensors.items():
            group = name.partition(".")[0]
            real[group] = real.get(group, 0) + tensor.nbytes
    rows = state_rows(training, training.share(Layout()))
    assert rows["parameters"] == real["parameters"] == 4 * disk.parameters(training)
    assert rows["Adam's moments"] == real["first"] + real["second"]
    assert rows["running mean of the weights"] == real["average"]
    assert rows["idle counters"] == real["idle_tokens"]

    folder = save_checkpoint(tmp_path, saved)
    written = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert disk.checkpoint_bytes(training) == pytest.approx(written, rel=0.02)


def test_encoders_in_bfloat16_are_those_of_the_state(model: LanguageModel) -> None:
    training = planned(model, precision="bfloat16")
    real = begun(model, training)._layers
    low = sum(
        each.state.W_enc_low.nbytes for each in real.values() if each.state.W_enc_low is not None
    )
    assert state_rows(training, training.share(Layout()))["encoders in bfloat16"] == low > 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_finished_dictionaries_are_as_large_as_said(
    model: LanguageModel, activation: str, tmp_path: Path
) -> None:
    training = planned(model, activation=activation)
    out = train(
        model,
        text(),
        tmp_path / "out",
        config=training.config,
        tokens=512,
        held_out_tokens=128,
        store_dtype=torch.float16,
    ).out
    written = sum(file.stat().st_size for file in out.glob("layer_*.safetensors"))
    assert disk.dictionary_bytes(training, value_bytes=2) == pytest.approx(written, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_cache_is_as_large_as_said(model: LanguageModel, dtype: str, tmp_path: Path) -> None:
    training = planned(model, cache=dtype)
    cache = write_cache(
        training.plan.live(model, text()),
        tmp_path / "cache",
        tokens=training.plan.harvested_tokens,
        dtype=dtype,
    )
    shards = sum(file.stat().st_size for file in cache.folder.glob("*.safetensors"))
    whole = disk.cache_bytes(training) * cache.tokens / training.plan.harvested_tokens
    assert whole == pytest.approx(shards, rel=0.02)


def test_buffer_and_block_are_the_streams(model: LanguageModel) -> None:
    training = planned(model)
    run = begun(model, training)
    columns = run.stream._buffer._columns.values()
    ids, order = run.stream._buffer._tokens, run.stream._order
    assert order is not None
    rows = process_memory(training, Layout()).rows
    held = sum(column.nbytes for column in columns) + ids.nbytes + order.nbytes
    assert rows["shuffle buffer"] == held
    live = LiveActivations(model, text(), list(training.widths), HarvestConfig(context_length=48))
    assert training.block_tokens == live.settings()["block_tokens"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_weights_has_the_shape_of_one_with_them(
    family: str, tmp_path: Path
) -> None:
    whole = load_model(tiny_model(family), check=False)
    whole.module.config.save_pretrained(tmp_path)
    bare = load_model(tmp_path, weights=False)
    assert {tensor.device.type for tensor in bare.module.parameters()} == {"meta"}
    sites = [Site("mlp_in", 1), Site("mlp_out", N_LAYERS - 1)]
    shape = ModelShape.of(bare, sites, 16)
    assert shape == ModelShape.of(whole, sites, 16)
    assert shape.bytes >= sum(tensor.nbytes for tensor in whole.module.parameters())


def test_operations_stop_at_the_deepest_site(model: LanguageModel) -> None:
    first = ModelShape.of(model, [Site("mlp_out", 0)], 16).flops
    second = ModelShape.of(model, [Site("mlp_out", 1)], 16).flops
    assert 1.9 * first < second < 2.1 * first
    # projections 2 (32 32 + 2 16 32 + 32 32), scores and values 2 2 16 32, MLP 2 3 32 48, rotation
    by_hand = 2 * (32 * 32 + 2 * 16 * 32 + 32 * 32) + 4 * 16 * 32 + 6 * 32 * 48
    assert first == pytest.approx(by_hand, rel=0.05)


def test_a_process_has_its_share_of_the_state(model: LanguageModel) -> None:
    training = planned(model)
    one = process_memory(training, Layout()).rows
    layers = process_memory(training, Layout(layers=3)).rows
    features = process_memory(training, Layout(features=2)).rows
    data = process_memory(training, Layout(data=4)).rows
    assert one["Adam's moments"] == 3 * layers["Adam's moments"]
    assert one["Adam's moments"] == pytest.approx(2 * features["Adam's moments"], rel=0.01)
    assert one["Adam's moments"] == data["Adam's moments"]
    assert one["shuffle buffer"] == 4 * data["shuffle buffer"] == features["shuffle buffer"]
    assert one["idle counters"] == 2 * features["idle counters"]
