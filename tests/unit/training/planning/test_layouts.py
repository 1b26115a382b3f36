"""Which layouts a plan looks at, how it orders them, and what stated hardware costs."""

import re
from dataclasses import replace

import pytest

from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.distributed.layout import Layout
from pellucid.harvest.config import HarvestConfig
from pellucid.training import TrainConfig
from pellucid.training.planning.hardware import Hardware, parse_hardware
from pellucid.training.planning.layouts import layouts, options, reason
from pellucid.training.planning.memory import process_memory
from pellucid.training.planning.rates import duration, exchanged_bytes, stated_rates
from pellucid.training.planning.remedies import memory_remedies
from pellucid.training.planning.shape import ModelShape, Training
from pellucid.training.run import RunPlan
from pellucid.training.sites import LayerSites

WIDTH = 512
EIGHT = Hardware(tflops=100, memory=80, bandwidth=2000, link=100)


def training(n_layers: int = 4, cache: str | None = None, **settings: object) -> Training:
    config = TrainConfig(**{"num_features": 8192, "k": 32} | settings)  # type: ignore[arg-type]
    sites = {
        layer: LayerSites(Site("mlp_in", layer), Site("mlp_out", layer))
        for layer in range(n_layers)
    }
    return Training(
        plan=RunPlan(
            config=config,
            total_tokens=4096 * 1000,
            sites=sites,
            harvest=HarvestConfig(context_length=256),
            fill_batches=10,
        ),
        widths={site: WIDTH for pair in sites.values() for site in pair},
        model=ModelShape(bytes=10**8, flops=1e8, heads=8, inner=2048),
        cache=cache,
    )


def test_every_layout_of_the_processes_is_looked_at_once() -> None:
    found = list(layouts(training(), 4))
    assert len(found) == len(set(found)) == 6
    assert all(layout.processes == 4 for layout in found)
    assert {layout.layers for layout in found} == {1, 2, 4}


@pytest.mark.parametrize(
    ("of", "ways"),
    [
        (training(kind="clt"), {(4, 1, 1), (2, 1, 2), (1, 1, 4)}),
        (training(n_layers=1), {(4, 1, 1), (2, 1, 2), (1, 1, 4)}),
        (training(batch_tokens=1022), {(2, 2, 1), (2, 1, 2), (1, 4, 1), (1, 2, 2), (1, 1, 4)}),
        (training(num_features=8190), {(4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 4, 1), (1, 2, 2)}),
    ],
)
def test_layouts_that_training_refuses_are_left_out(
    of: Training, ways: set[tuple[int, int, int]]
) -> None:
    found = {(each.data, each.layers, each.features) for each in layouts(of, 4)}
    assert found == ways


def test_the_fastest_that_fits_comes_first() -> None:
    of = training()
    rates = stated_rates(of, EIGHT)
    every = options(of, list(layouts(of, 4)), rates, available=10**12, gpu=True)
    times = [each.seconds for each in every]
    assert times[0] <= 1.02 * min(times)
    assert reason(every) in ("the fastest that fits", "as fast as any that fits, and the plainest")

    needs = sorted(each.memory.peak for each in every)
    tight = options(of, list(layouts(of, 4)), rates, available=needs[0], gpu=True)
    assert [each.fits for each in tight] == sorted((each.fits for each in tight), reverse=True)
    assert tight[0].memory.peak == needs[0]

    none = options(of, list(layouts(of, 4)), rates, available=1, gpu=True)
    assert not none[0].fits
    assert none[0].memory.peak == needs[0]
    assert reason(none) == "none fits; this one needs least memory"


def test_where_text_is_dear_data_is_spread_and_where_weights_are_dear_they_are() -> None:
    dear_text = replace(training(), model=ModelShape(bytes=10**8, flops=1e12, heads=8, inner=2048))
    slow_link = replace(EIGHT, link=0.1)
    for of, axis in ((dear_text, "data"), (training(num_features=2**18), "layers")):
        rates = stated_rates(of, slow_link)
        best = options(of, list(layouts(of, 4)), rates, available=10**15, gpu=True)[0]
        assert getattr(best.layout, axis) == 4


def test_exchange_is_a_ring_over_gradients_or_over_what_is_written() -> None:
    of = training()
    weights = 4 * (2 * 8192 * WIDTH + 8192 + WIDTH)
    data = exchanged_bytes(of, of.share(Layout(data=4)))
    assert data == pytest.approx(4 * weights * 2 * 3 / 4)
    assert exchanged_bytes(of, of.share(Layout(layers=4))) == 0
    features = exchanged_bytes(of, of.share(Layout(features=2)))
    assert features > 4 * 2 * 4096 * 4 * WIDTH


def test_stated_time_is_arithmetic() -> None:
    of = training(n_layers=1, k=1, aux_k=1)
    fast_memory = Hardware(tflops=10, memory=80, bandwidth=1e12, efficiency=0.5)
    time = duration(of, stated_rates(of, fast_memory), Layout())
    tokens = of.plan.total_tokens
    assert time.harvesting == pytest.approx(1e8 * of.plan.harvested_tokens / 5e12)
    assert time.stepping == pytest.approx(2 * WIDTH * 8192 * tokens / 5e12, rel=0.01)
    assert time.caching == 0
    cached = training(n_layers=1, k=1, aux_k=1, cache="int8")
    later = duration(cached, stated_rates(cached, fast_memory), Layout())
    assert later.caching == pytest.approx(time.harvesting, rel=0.01)
    assert later.harvesting < 0.01 * time.harvesting


def test_remedies_fit() -> None:
    of = training(num_features=2**16, average=0.9, precision="bfloat16", batch_tokens=8192)
    limit = int(process_memory(of, Layout()).peak * 0.9)
    found = memory_remedies(of, Layout(), available=limit, gpu=False)
    assert any(re.fullmatch(r"4 processes with --layout \S+", text) for text in found)
    assert any(text.startswith("no --average") for text in found)
    features = next(text for text in found if text.startswith("--features "))
    fewer = training(
        num_features=int(features.split()[1]),
        average=0.9,
        precision="bfloat16",
        batch_tokens=8192,
    )
    assert process_memory(fewer, Layout()).peak <= limit
    assert memory_remedies(of, Layout(), available=1, gpu=False) == []


def test_hardware_is_read() -> None:
    assert parse_hardware("tflops=67, memory=80,bandwidth=3350,link=450") == Hardware(
        tflops=67, memory=80, bandwidth=3350, link=450
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tflops=67", "hardware lacks memory, bandwidth; write it like tflops=67"),
        ("tflops=67,memory", "cannot be read at 'memory'"),
        ("tflops=fast", "cannot be read at 'tflops=fast'"),
        ("tflops=1,tflops=2", "has 'tflops'; give each of tflops, memory"),
        ("cores=8", "has 'cores'"),
        ("tflops=0,memory=80,bandwidth=3350", "tflops is 0; give a positive number"),
        ("tflops=1,memory=8,bandwidth=9,efficiency=2", "efficiency is 2; give a share"),
    ],
)
def test_hardware_that_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_hardware(text)
    assert words in str(caught.value)
