"""A run between two steps: the stream, every layer's training, and how to save and go on."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.core.config import config_to_dict
from pellucid.core.types import AnySite
from pellucid.dictionaries.base import Dictionary
from pellucid.harvest.activations import ActivationBatch, ActivationSource
from pellucid.harvest.config import HarvestConfig
from pellucid.harvest.live import LiveActivations
from pellucid.harvest.stream import ActivationStream
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.training.config import TrainConfig
from pellucid.training.layer import LayerTraining, step_together
from pellucid.training.run_checkpoint import RunCheckpoint
from pellucid.training.sites import LayerSites
from pellucid.training.step import StepMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything that, with a model and a text, decides the result of a run.

    Attributes:
        config: of every dictionary.
        total_tokens: how many to train on.
        sites: by layer.
        harvest: how the model reads text.
        fill_batches: batches shuffled together.
    """

    config: TrainConfig
    total_tokens: int
    sites: dict[int, LayerSites]
    harvest: HarvestConfig
    fill_batches: int

    @property
    def total_steps(self) -> int:
        """How many whole batches the tokens make."""
        return max(1, self.total_tokens // self.config.batch_tokens)

    @property
    def groups(self) -> list[list[int]]:
        """Layers whose dictionaries are stepped together: one by one, or all of a cross-layer's."""
        layers = list(self.sites)
        return [layers] if self.config.kind == "clt" else [[layer] for layer in layers]

    def later(self, layer: int) -> list[AnySite]:
        """What a layer's dictionary writes beyond its own write site."""
        if self.config.kind != "clt":
            return []
        return [pair.write for other, pair in self.sites.items() if other > layer]

    @property
    def harvested_tokens(self) -> int:
        """How many tokens whole fills of the buffer take."""
        fills = -(-self.total_steps // self.fill_batches)
        return fills * self.fill_batches * self.config.batch_tokens

    def live(self, model: LanguageModel, text: TextSource) -> LiveActivations:
        """The activations of every layer's sites on a text."""
        sites = [site for pair in self.sites.values() for site in pair]
        return LiveActivations(model, text, sites, self.harvest)

    def stream(self, source: ActivationSource) -> ActivationStream:
        """Shuffled batches of them."""
        return ActivationStream(
            source,
            batch_tokens=self.config.batch_tokens,
            fill_batches=self.fill_batches,
            seed=self.config.seed,
        )

    def identity(
        self, model: LanguageModel, text: TextSource, source: ActivationSource
    ) -> dict[str, Any]:
        """What must be equal for two runs to be the same, by name; JSON-able."""
        return config_to_dict(self.config) | {
            "tokens": self.total_tokens,
            "sites": {str(layer): list(map(str, pair)) for layer, pair in self.sites.items()},
            "fill_batches": self.fill_batches,
            **source.settings(),
            "model": model.fingerprint(),
            "text": text.fingerprint,
        }


class Run:
    """Trains a dictionary for every layer on one stream of activations.

    Args:
        plan: what to do.
        model: whose activations.
        text: the text to train on.
        source: its activations, live or from a cache.
    """

    def __init__(
        self, plan: RunPlan, model: LanguageModel, text: TextSource, source: ActivationSource
    ) -> None:
        self.plan = plan
        self.identity = plan.identity(model, text, source)
        self.steps = 0
        self.seconds = 0.0
        self.stream = plan.stream(source)
        self._device = model.device
        self._layers: dict[int, LayerTraining] = {}

    @property
    def tokens(self) -> int:
        """How many tokens the run has trained on."""
        return self.steps * self.plan.config.batch_tokens

    @property
    def tokens_per_second(self) -> float:
        """The rate of harvesting and training together, over the whole run."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def advance(self) -> dict[int, StepMetrics]:
        """Train every layer on the next batch.

        Raises:
            DataError: activations that nothing can be learned from.
            DictionaryError: a loss is not finite.
        """
        began = time.perf_counter()
        batch = next(self.stream)
        if not self._layers:
            self._layers = {layer: self._start(layer, batch) for layer in self.plan.sites}
        metrics: dict[int, StepMetrics] = {}
        for layers in self.plan.groups:
            trainings = [self._layers[layer] for layer in layers]
            xs = [batch.values[training.read_site] for training in trainings]
            ys = [batch.values[training.write_site] for training in trainings]
            metrics |= zip(layers, step_together(trainings, xs, ys), strict=True)
        self.steps += 1
        self.seconds += time.perf_counter() - began
        return metrics

    def dictionaries(self) -> dict[int, Dictionary]:
        """The dictionaries as trained so far, by layer."""
        return {layer: training.dictionary() for layer, training in self._layers.items()}

    def checkpoint(self) -> RunCheckpoint:
        """All that `restore` needs."""
        return RunCheckpoint(
            tokens=self.tokens,
            identity=self.identity,
            state={
                "steps": self.steps,
                "seconds": self.seconds,
                "stream": self.stream.state_dict(),
            },
            tensors={f"layer_{layer}": part.tensors() for layer, part in self._layers.items()},
        )

    def restore(self, checkpoint: RunCheckpoint) -> None:
        """Go on from a checkpoint of a run with the same identity."""
        self.steps, self.seconds = checkpoint.state["steps"], checkpoint.state["seconds"]
        self.stream.load_state_dict(checkpoint.state["stream"])
        self._layers = {
            layer: self._restored(layer, checkpoint.tensors[f"layer_{layer}"])
            for layer in self.plan.sites
        }

    def _start(self, layer: int, batch: ActivationBatch) -> LayerTraining:
        sites = self.plan.sites[layer]
        later = self.plan.later(layer)
        generator = torch.Generator().manual_seed(self.plan.config.seed * 10_007 + layer)
        return LayerTraining.start(
            self.plan.config,
            batch.values[sites.read],
            batch.values[sites.write],
            read_site=sites.read,
            write_site=sites.write,
            total_tokens=self.plan.total_tokens,
            generator=generator,
            later=[batch.values[site] for site in later],
        )

    def _restored(self, layer: int, tensors: Mapping[str, Tensor]) -> LayerTraining:
        sites = self.plan.sites[layer]
        return LayerTraining.restore(
            self.plan.config,
            {name: tensor.to(self._device) for name, tensor in tensors.items()},
            read_site=sites.read,
            write_site=sites.write,
            total_tokens=self.plan.total_tokens,
        )
