"""Everything that verifiers learn from, read of a chain in one forward pass."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.attribution.trace import Trace
from pellucid.core.errors import ConfigError
from pellucid.core.types import Site
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.graphs.graph import AttributionGraph
from pellucid.models.model import LanguageModel
from pellucid.replacement.freeze import FrozenRun
from pellucid.replacement.local import LocalReplacement
from pellucid.verification.fingerprints.bags import bags
from pellucid.verification.fingerprints.fingerprint import fingerprint
from pellucid.verification.fingerprints.measured import MeasuredGraph
from pellucid.verification.reading.confidence import confidence_scores
from pellucid.verification.reading.embedding_chain import embedding_chain_scores
from pellucid.verification.reading.targets import TARGETS, TargetName, explanandum
from pellucid.verification.steps.place import StepPlace

Sparse = tuple[np.ndarray, np.ndarray, int]
"""Ascending indices, their values, and the size of the vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSettings:
    """What to read.

    Attributes:
        targets: which graphs, may be none; see `pellucid.verification.reading.targets`. Bags are
            read of the first.
        max_features: the most features a graph keeps.
        tokens: keep the hidden state of every token too (for probes that pool by attention).

    Raises:
        ConfigError: an unknown target, or no feature at all.
    """

    targets: tuple[TargetName, ...] = ("answer", "after")
    max_features: int = 128
    tokens: bool = True

    def __post_init__(self) -> None:
        if unknown := [name for name in self.targets if name not in TARGETS]:
            raise ConfigError(f"there is no target {unknown[0]!r}; use {', '.join(TARGETS)}")
        if self.max_features < 1:
            raise ConfigError(f"max_features is {self.max_features}; give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReading:
    """What was read of one step; a row of a `StepSet`.

    Attributes:
        columns, arrays, bags, ragged: by name; see `pellucid.verification.steps.step_set`.
        graphs: by target.
        seconds: processor time that its graphs took.
    """

    columns: Mapping[str, float]
    arrays: Mapping[str, np.ndarray]
    bags: Mapping[str, Sparse]
    ragged: Mapping[str, np.ndarray]
    graphs: Mapping[str, AttributionGraph] = field(default_factory=dict)
    seconds: float = 0.0


class Reader:
    """Reads chains of a model with its dictionaries.

    Args:
        model: the model under test.
        dictionaries: transcoders of every layer.
        settings: what to read.

    Raises:
        DictionaryError: the dictionaries do not fit the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        dictionaries: DictionarySet,
        settings: ReaderSettings | None = None,
    ) -> None:
        dictionaries.check_model(model)
        self.model, self.dictionaries = model, dictionaries
        self.settings = settings or ReaderSettings()

    def record(self) -> dict[str, object]:
        """What decides the readings: model, dictionaries and settings, JSON-able."""
        return {
            "model": self.model.fingerprint(),
            "dictionaries": self.dictionaries.name,
            "settings": asdict(self.settings),
        }

    def chain(self, ids: Sequence[int]) -> "ChainReading":
        """One forward pass over a chain.

        Raises:
            PromptError: it is empty or too long for the model.
        """
        return ChainReading(self, ids)


class ChainReading:
    """A chain that was run once; its steps are read from that.

    Args:
        reader: with what.
        ids: the chain, special first token included.
    """

    def __init__(self, reader: Reader, ids: Sequence[int]) -> None:
        self.settings = reader.settings
        self.trace = Trace(reader.model, ids, reader.dictionaries)
        self.local: LocalReplacement = self.trace.linear.local
        self.run: FrozenRun = self.local.run

    @cached_property
    def hidden(self) -> Float[Tensor, "sites S d"]:
        """The residual stream before every block and after the last."""
        last = len(self.run.layers) - 1
        sites = [Site("resid_pre", layer) for layer in range(last + 1)]
        return torch.stack([self.run.residual(s) for s in (*sites, Site("resid_post", last))])

    @cached_property
    def left_out(self) -> Float[Tensor, "layers S"]:
        """Norm of what a layer's dictionary leaves out, as a share of the norm of its output."""
        return torch.stack(
            [
                layer.error.norm(dim=-1) / frozen.mlp_out.norm(dim=-1).clamp_min(1e-12)
                for layer, frozen in zip(self.local.layers, self.run.layers, strict=True)
            ]
        )

    def step(self, place: StepPlace) -> StepReading:
        """Read one step."""
        started = time.process_time()
        graphs: dict[str, AttributionGraph] = {
            name: self.graph(place, name) for name in self.settings.targets
        }
        measured = {name: MeasuredGraph(graph, place) for name, graph in graphs.items()}
        columns = {
            f"graph.{target}.{name}": value
            for target, each in measured.items()
            for name, value in fingerprint(each).items()
        }
        seconds = time.process_time() - started
        read = {"activations": self._activations(place)}
        for first in list(measured.values())[:1]:
            widest = max(layer.active.num_features for layer in self.local.layers)
            for name, bag in bags(first, widest).items():
                read[name] = (bag.numbers, bag.values, bag.size)
        columns |= self.free(place) | self._errors(place)
        return StepReading(
            columns=columns,
            arrays=self._arrays(place),
            bags=read,
            ragged=self._tokens(place) if self.settings.tokens else {},
            graphs=graphs,
            seconds=seconds,
        )

    def graph(self, place: StepPlace, name: TargetName) -> AttributionGraph:
        """The unpruned graph of one target."""
        wanted = explanandum(self.run, place, name)
        return self.trace.graph(
            wanted.target, position=wanted.position, max_features=self.settings.max_features
        )

    def free(self, place: StepPlace) -> dict[str, float]:
        """The scores that cost nothing beyond the forward pass."""
        logits = self.run.logits[place.start - 1 : place.stop - 1]
        answer = (place.answer[0] - place.start, place.answer[1] - place.start)
        scores = confidence_scores(logits, self.run.ids[place.start : place.stop], answer)
        hidden = self.hidden[:, place.start : place.stop]
        scores |= embedding_chain_scores(hidden)
        return {f"free.{name}": value for name, value in scores.items()}

    def _errors(self, place: StepPlace) -> dict[str, float]:
        columns: dict[str, float] = {}
        for layer, shares in enumerate(self.left_out):
            inside = shares[place.start - 1 : place.stop - 1]
            columns |= {
                f"error_norm.{layer}.mean": float(inside.mean()),
                f"error_norm.{layer}.max": float(inside.max()),
                f"error_norm.{layer}.answer": float(shares[place.answer[0] - 1]),
            }
        return columns

    def _arrays(self, place: StepPlace) -> dict[str, np.ndarray]:
        hidden = self.hidden
        return {
            "hidden": hidden[:, place.start : place.stop].mean(1).numpy(),
            "hidden_last": hidden[:, place.stop - 1].numpy(),
            "hidden_answer": hidden[:, place.answer[0] - 1].numpy(),
        }

    def _tokens(self, place: StepPlace) -> dict[str, np.ndarray]:
        inside = self.hidden[:, place.start : place.stop].transpose(0, 1)
        return {"hidden_tokens": inside.numpy().astype(np.float16)}

    def _activations(self, place: StepPlace) -> Sparse:
        """Feature activations summed over the tokens from which the step was predicted."""
        numbers, values, offset = [], [], 0
        for layer in self.local.layers:
            active = layer.active
            inside = (active.positions >= place.start - 1) & (active.positions < place.stop - 1)
            numbers.append(active.features[inside] + offset)
            values.append(active.activations[inside])
            offset += active.num_features
        features, where = torch.cat(numbers).unique(return_inverse=True)
        summed = torch.zeros(len(features)).index_add_(0, where, torch.cat(values).float())
        return features.numpy(), summed.numpy(), offset
