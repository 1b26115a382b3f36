"""A run between two steps: the stream, every layer's training, and how to save and go on."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.core.config import config_to_dict
from pellucid.core.errors import ConfigError
from pellucid.core.types import AnySite
from pellucid.dictionaries.base import Dictionary
from pellucid.distributed.processes import ALONE, Processes
from pellucid.distributed.team import Team, Teams
from pellucid.harvest.activations import ActivationBatch, ActivationSource, SharedActivations
from pellucid.harvest.cache.use import through_cache
from pellucid.harvest.config import ForwardPrecision, HarvestConfig
from pellucid.harvest.live import LiveActivations, site_widths
from pellucid.harvest.rows import Packing
from pellucid.harvest.stream import ActivationStream, tokens_to_shuffle
from pellucid.harvest.text import TextSource
from pellucid.models.model import LanguageModel
from pellucid.models.reader import fast_reader
from pellucid.training.config import TrainConfig
from pellucid.training.layer import LayerTraining, step_together
from pellucid.training.run_checkpoint import RunCheckpoint
from pellucid.training.sites import LayerSites, layer_sites
from pellucid.training.step import StepMetrics

LONGEST_CONTEXT = 256
"""Tokens of text the model reads at once, unless its context is shorter or another is asked for."""


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

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        config: TrainConfig,
        *,
        tokens: int,
        layers: Sequence[int] | None = None,
        read: str | None = None,
        write: str | None = None,
        context_length: int | None = None,
        shuffle_tokens: int | None = None,
        forward_precision: ForwardPrecision | None = None,
        packing: Packing = "documents",
        exclude_high_norm: float | None = None,
        feature_processes: int = 1,
    ) -> "RunPlan":
        """The plan of what `train` was asked for (see there), every setting checked on the model.

        Args:
            model: whose activations; one without weights will do.
            config: of every dictionary.
            tokens: how many to train on.
            layers: which.
            read: module path or site to read.
            write: module path or site to write.
            context_length: tokens the model reads at once.
            shuffle_tokens: tokens shuffled together.
            forward_precision: of the model's forward pass.
            packing: of rows.
            exclude_high_norm: a multiple of the median norm.
            feature_processes: over how many processes features are spread.

        Raises:
            ConfigError: settings that do not fit each other, the model or the processes.
            SiteError: the model has no such site.
        """
        sites = layer_sites(model, config.kind, layers=layers, read=read, write=write)
        widths = site_widths(model, [site for pair in sites.values() for site in pair])
        for pair in sites.values():
            count = config.features(widths[pair.write])
            if count % feature_processes:
                raise ConfigError(
                    f"{count} features do not part evenly over {feature_processes} processes; give "
                    "a multiple"
                )
        shuffled = shuffle_tokens or tokens_to_shuffle(list(widths.values()))
        return cls(
            config=config,
            total_tokens=tokens,
            sites=sites,
            harvest=HarvestConfig(
                context_length=context_length or min(LONGEST_CONTEXT, model.context_length),
                packing=packing,
                exclude_high_norm=exclude_high_norm,
                forward_precision=forward_precision or config.multiplied_in(),
            ),
            fill_batches=max(1, min(shuffled, tokens) // config.batch_tokens),
        )

    @property
    def total_steps(self) -> int:
        """How many whole batches the tokens make."""
        return max(1, self.total_tokens // self.config.batch_tokens)

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

    def layers_of(self, processes: Processes) -> list[int]:
        """The layers whose dictionaries this process trains.

        Raises:
            ConfigError: they cannot be spread over so many processes.
        """
        layers, size = list(self.sites), processes.layers.size
        if size > 1 and self.config.kind == "clt":
            raise ConfigError(
                f"the layers of a cross-layer transcoder are trained together, not over {size} "
                "processes; spread tokens (data) or features"
            )
        if size > len(layers):
            raise ConfigError(f"layers={size} of the layout exceeds the {len(layers)} trained")
        if size > 1 and self.harvest.exclude_high_norm is not None:
            raise ConfigError(
                "exclude_high_norm looks at the norms of all layers, which the layout spreads over "
                f"{size} processes; leave it out, or spread data or features"
            )
        return layers[processes.layers.share(len(layers))]

    def live(
        self, model: LanguageModel, text: TextSource, layers: Sequence[int] | None = None
    ) -> LiveActivations:
        """The activations of some layers' sites on a text, by default of all."""
        every, kept = self._sites_of(self.sites), self._sites_of(layers or self.sites)
        return LiveActivations(fast_reader(model, every), text, every, self.harvest, keep=kept)

    def cached(
        self, live: LiveActivations, layers: Sequence[int], **options: Any
    ) -> ActivationSource:
        """The activations of some layers' sites from a cache of all; see `through_cache`."""
        return through_cache(
            live,
            tokens=self.harvested_tokens,
            seed=self.config.seed,
            keep=self._sites_of(layers),
            **options,
        )

    def stream(
        self, source: ActivationSource, tokens: Team = ALONE.teams.tokens
    ) -> ActivationStream:
        """Shuffled batches of them, or of this process's share.

        Raises:
            ConfigError: a batch does not part evenly.
        """
        if self.config.batch_tokens % tokens.size:
            raise ConfigError(
                f"batch_tokens {self.config.batch_tokens} does not part evenly over the "
                f"{tokens.size} processes of data; give a multiple"
            )
        if tokens.size > 1:
            source = SharedActivations(source, rank=tokens.rank, size=tokens.size)
        return ActivationStream(
            source,
            batch_tokens=self.config.batch_tokens // tokens.size,
            fill_batches=self.fill_batches,
            seed=self.config.seed,
        )

    def _sites_of(self, layers: Iterable[int]) -> list[AnySite]:
        return [site for layer in layers for site in self.sites[layer]]

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
        source: its activations, live or from a cache: of this process's layers at least.
        processes: that train together.

    Raises:
        ConfigError: the work does not part over the processes.
    """

    def __init__(
        self,
        plan: RunPlan,
        model: LanguageModel,
        text: TextSource,
        source: ActivationSource,
        processes: Processes = ALONE,
    ) -> None:
        self.plan = plan
        self.identity = plan.identity(model, text, source)
        self.steps = 0
        self.seconds = 0.0
        self.processes = processes
        self.layers = plan.layers_of(processes)
        self.stream = plan.stream(source, processes.teams.tokens)
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
        """Train every layer on the next batch; all processes call this together.

        Returns:
            What the step saw of every layer, those of other processes too.

        Raises:
            DataError: activations that nothing can be learned from.
            DictionaryError: a loss is not finite.
        """
        began = time.perf_counter()
        batch = next(self.stream)
        if not self._layers:
            self._layers = {layer: self._start(layer, batch) for layer in self.layers}
        metrics: dict[int, StepMetrics] = {}
        for layers in self._groups():
            trainings = [self._layers[layer] for layer in layers]
            xs = [batch.values[training.read_site] for training in trainings]
            ys = [batch.values[training.write_site] for training in trainings]
            metrics |= zip(layers, step_together(trainings, xs, ys), strict=True)
        self.steps += 1
        metrics = self._metrics_of_all(metrics)
        self.seconds += time.perf_counter() - began
        return metrics

    def excluded_tokens(self) -> int:
        """How many tokens were left out of the text that all processes read; all call this."""
        own = torch.tensor(self.stream.excluded, device=self._device)
        return int(self.processes.teams.tokens.sum(own))

    def dictionaries(self) -> dict[int, Dictionary]:
        """The dictionaries as trained so far, by layer."""
        return {layer: training.dictionary() for layer, training in self._layers.items()}

    def finish(self, saved: Iterable[Mapping[str, Tensor]] | None = None) -> dict[int, Dictionary]:
        """The dictionaries of a run that is over, by layer; all its other memory is given back.

        Args:
            saved: the parts of the checkpoint that all processes ended with, in the order of the
                layers, where this process has not all of them.
        """
        self.stream.close()
        if saved is None:
            return {layer: self._layers.pop(layer).finish() for layer in self.layers}
        self._layers.clear()
        return {
            layer: self._restored(layer, tensors, Teams()).finish()
            for layer, tensors in zip(self.plan.sites, saved, strict=True)
        }

    def checkpoint(self) -> RunCheckpoint:
        """All that `restore` needs."""
        return RunCheckpoint(
            tokens=self.tokens,
            identity=self.identity,
            state={
                "steps": self.steps,
                "seconds": self.seconds,
            },
            stream=self.stream.state_dict(),
            tensors={part_of(layer): part.tensors() for layer, part in self._layers.items()},
        )

    @property
    def parts(self) -> list[str]:
        """Which parts of a checkpoint this process has."""
        return [part_of(layer) for layer in self.layers]

    def restore(self, checkpoint: RunCheckpoint) -> None:
        """Go on from a checkpoint of a run with the same identity."""
        self.steps, self.seconds = checkpoint.state["steps"], checkpoint.state["seconds"]
        self.stream.load_state_dict(checkpoint.stream)
        self._layers = {
            layer: self._restored(layer, checkpoint.tensors[part_of(layer)], self.processes.teams)
            for layer in self.layers
        }

    def _groups(self) -> list[list[int]]:
        """Layers whose dictionaries are stepped together: one by one, or all of a cross-layer's."""
        if self.plan.config.kind == "clt":
            return [self.layers]
        return [[layer] for layer in self.layers]

    def _metrics_of_all(self, own: Mapping[int, StepMetrics]) -> dict[int, StepMetrics]:
        every = list(self.plan.sites)
        if self.processes.layers.size == 1:
            return dict(own)
        table = torch.zeros(len(every), len(StepMetrics._fields), dtype=torch.float64)
        for layer, metrics in own.items():
            table[every.index(layer)] = torch.tensor(metrics, dtype=torch.float64)
        rows = self.processes.layers.sum(table.to(self._device)).tolist()
        return {layer: StepMetrics(*row) for layer, row in zip(every, rows, strict=True)}

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
            teams=self.processes.teams,
        )

    def _restored(self, layer: int, tensors: Mapping[str, Tensor], teams: Teams) -> LayerTraining:
        sites = self.plan.sites[layer]
        return LayerTraining.restore(
            self.plan.config,
            {name: tensor.to(self._device) for name, tensor in tensors.items()},
            read_site=sites.read,
            write_site=sites.write,
            total_tokens=self.plan.total_tokens,
            teams=teams,
        )


def part_of(layer: int) -> str:
    """The name of the part of a checkpoint that has a layer's training."""
    return f"layer_{layer}"
