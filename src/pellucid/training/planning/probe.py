"""A few real blocks and a few real steps on this machine: how fast each part of a training is.

Every part is timed on its own, its first run discarded. A step is timed at the whole batch and at a
quarter of it, which tells what a step costs from what a token costs. Features that the first steps
left silent count as dead from then on, as they will in most of a long run.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import AnySite
from pellucid.distributed.layout import Layout
from pellucid.harvest.activations import Block
from pellucid.harvest.cache.shard import pack_block, read_rows, write_shard
from pellucid.harvest.cache.storage import STORAGE
from pellucid.harvest.live import FORWARD_TOKENS, LiveActivations
from pellucid.harvest.shuffle import ActivationBuffer, fill_order
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.training.layer import LayerTraining, step_together
from pellucid.training.planning.rates import Rates
from pellucid.training.planning.shape import Training

Values = Mapping[AnySite, Float[Tensor, "N D"]]
OnProbe = Callable[[str, float], None]
"""Told what is being measured, and the share of the probe's time that is over."""
_FIRST_TOKENS = 512
_SHARES = {"harvesting": 0.35, "caching": 0.15, "stepping": 0.5}
_LEAST, _MOST = 2, 8  # timed repeats
_SMALLER = 4


@dataclass(frozen=True, slots=True)
class Probe:
    """Measures rates within a number of seconds, or little more.

    Attributes:
        training: what is planned.
        model: whose activations.
        text: to read; without one, random tokens, and reading text costs nothing.
        seconds: how long the probe may take.
        clock: seconds that count.
        on_probe: told what is going on.
    """

    training: Training
    model: LanguageModel
    text: TextSource | None
    seconds: float
    clock: Callable[[], float]
    on_probe: OnProbe

    def rates(self, link: float) -> Rates:
        """What was measured, with the speed of a link between processes as it is stated."""
        self.on_probe("reading text and running the model", 0.0)
        block, harvest = self._harvest(self.seconds * _SHARES["harvesting"])
        store, read = None, None
        if self.training.cache is not None:
            self.on_probe("writing and reading a cache", _SHARES["harvesting"])
            store, read = self._cache(block)
        self.on_probe("training steps", 1 - _SHARES["stepping"])
        batch, draw = self._batch(block)
        step, token = self._steps(batch, self.seconds * _SHARES["stepping"])
        self.on_probe("training steps", 1.0)
        return Rates(
            harvest=harvest,
            batch=draw,
            step=step,
            token=token,
            store=store,
            read=read,
            link=link,
        )

    def _harvest(self, seconds: float) -> tuple[Block, float]:
        """A block of activations, and seconds a token."""
        if self.text is None:
            return self._harvest_random(seconds)
        plan = self.training.plan
        sites = list(self.training.widths)
        first = LiveActivations(
            self.model, self.text, sites, plan.harvest, block_tokens=_FIRST_TOKENS
        )
        first.next_block()
        began = self.clock()
        tokens = len(first.next_block().tokens)
        a_token = (self.clock() - began) / tokens
        affordable = int(seconds / 2 / max(a_token, 1e-9))
        size = max(_FIRST_TOKENS, min(self.training.block_tokens, affordable))
        live = LiveActivations(self.model, self.text, sites, plan.harvest, block_tokens=size)
        last: list[Block] = []
        tokens_read: list[int] = []

        def read() -> None:
            last[:] = [live.next_block()]
            tokens_read.append(len(last[0].tokens))

        taken = self._timed(read, seconds / 2, least=1)
        return last[0], sum(taken) / sum(tokens_read[-len(taken) :])

    def _harvest_random(self, seconds: float) -> tuple[Block, float]:
        length = self.training.plan.harvest.context_length
        rows = max(1, FORWARD_TOKENS // length)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.model.vocab_size, (rows, length), generator=generator)
        values: dict[AnySite, Tensor] = {}

        def run() -> None:
            with torch.no_grad(), self._precision():
                found = self.model.activations(
                    ids, list(self.training.widths), mask=torch.ones_like(ids)
                )
            values.update({site: value.flatten(0, 1).float() for site, value in found.items()})

        taken = self._timed(run, seconds)
        return Block(values, ids.flatten(), 0), median(taken) / ids.numel()

    def _precision(self) -> torch.autocast:
        reduced = self.training.plan.harvest.forward_precision == "bfloat16"
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=reduced)

    def _cache(self, block: Block) -> tuple[float, float]:
        """Seconds a token to store and to read."""
        assert self.training.cache is not None
        storage = STORAGE[self.training.cache]
        sites, tokens = list(block.values), len(block.tokens)
        with tempfile.TemporaryDirectory(prefix="pellucid-plan-") as folder:
            path = Path(folder) / "shard.safetensors"
            seconds = self.seconds * _SHARES["caching"] / 2

            def write() -> None:
                write_shard(path, [pack_block(block, 0, 0, storage)])

            def read() -> None:
                read_rows(path, 0, tokens, sites, storage=storage, device=self.model.device)

            stored = median(self._timed(write, seconds))
            return stored / tokens, median(self._timed(read, seconds)) / tokens

    def _batch(self, block: Block) -> tuple[Values, float]:
        """A batch of the block's tokens, repeated if they are too few, and seconds a token."""
        wanted = self.training.config.batch_tokens
        buffer = ActivationBuffer(len(block.tokens))
        buffer.append(block.values, block.tokens)
        order = fill_order(len(block.tokens), seed=0, fill=0).repeat(
            -(-wanted // len(block.tokens))
        )
        drawn: list[Values] = []

        def take() -> None:
            drawn[:] = [buffer.take(order[:wanted])[0]]

        taken = self._timed(take, 1.0)
        return drawn[0], median(taken) / wanted

    def _steps(self, batch: Values, seconds: float) -> tuple[float, float]:
        """Seconds of an update whatever its batch, and seconds that each token of it adds."""
        share = self.training.share(Layout())
        layers = share.layers if self.training.config.kind == "clt" else share.layers[:1]
        trainings = [self._start(layer, batch) for layer in layers]
        tokens = len(next(iter(batch.values())))
        few = max(1, tokens // _SMALLER)

        def step(count: int) -> Callable[[], object]:
            xs = [batch[each.read_site][:count] for each in trainings]
            ys = [batch[each.write_site][:count] for each in trainings]
            return lambda: step_together(trainings, xs, ys)

        for _ in range(2):
            step(tokens)()
        for each in trainings:
            silent = each.state.idle_tokens >= 2 * tokens
            each.state.idle_tokens[silent] = each.dead_after
        whole = median(self._timed(step(tokens), seconds * 0.7))
        if few == tokens:
            return 0.0, whole / tokens
        part = median(self._timed(step(few), seconds * 0.3))
        a_token = max(0.0, whole - part) / (tokens - few)
        return max(0.0, whole - a_token * tokens), a_token

    def _start(self, layer: int, batch: Values) -> LayerTraining:
        plan = self.training.plan
        sites = plan.sites[layer]
        return LayerTraining.start(
            plan.config,
            batch[sites.read],
            batch[sites.write],
            read_site=sites.read,
            write_site=sites.write,
            total_tokens=plan.total_tokens,
            generator=torch.Generator().manual_seed(layer),
            later=[batch[site] for site in plan.later(layer)],
        )

    def _timed(
        self, work: Callable[[], object], seconds: float, least: int = _LEAST
    ) -> list[float]:
        """Seconds of repeats that fit into a time, after one that does not count."""
        taken: list[float] = []
        self._run(work)
        end = time.perf_counter() + seconds
        while len(taken) < least or (len(taken) < _MOST and time.perf_counter() < end):
            taken.append(self._run(work))
        return taken

    def _run(self, work: Callable[[], object]) -> float:
        began = self.clock()
        work()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return self.clock() - began
