"""The sizes a plan is made of: the model's, the dictionaries', and a process's share of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from pellucid.core.types import AnySite
from pellucid.distributed.layout import Layout
from pellucid.harvest.live import FORWARD_TOKENS, tokens_a_block
from pellucid.models.model import LanguageModel
from pellucid.training.config import TrainConfig
from pellucid.training.run import RunPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What a plan has to know of a model; one without weights has it too.

    Attributes:
        bytes: of parameters and buffers.
        flops: floating-point operations of a forward pass a token, as far as the deepest site.
        heads: of a layer's attention.
        inner: width inside an MLP.
    """

    bytes: int
    flops: float
    heads: int
    inner: int

    @classmethod
    def of(cls, model: LanguageModel, sites: Sequence[AnySite], length: int) -> "ModelShape":
        """That of a model read at some sites in rows of `length` tokens."""
        ids = torch.zeros((1, length), dtype=torch.int64)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.activations(ids, sites, mask=torch.ones_like(ids))
        tensors = [*model.module.parameters(), *model.module.buffers()]
        config = getattr(model.module, "config", None)
        hidden = getattr(config, "hidden_size", 0)
        return cls(
            bytes=sum(tensor.nbytes for tensor in tensors),
            flops=counter.get_total_flops() / length,
            heads=getattr(config, "num_attention_heads", None) or 1,
            inner=getattr(config, "intermediate_size", None) or 4 * hidden,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DictionaryShape:
    """The sizes of one layer's dictionary.

    Attributes:
        d_in: width read.
        d_out: width of one site written.
        slots: how many sites are written, more than one in a cross-layer transcoder.
        features: of it.
    """

    d_in: int
    d_out: int
    slots: int
    features: int

    @property
    def written(self) -> int:
        """Width of all that a feature writes."""
        return self.slots * self.d_out

    def values(self, config: TrainConfig) -> dict[str, int]:
        """How many values each tensor in training has (see `Parameters`)."""
        counts = {
            "W_enc": self.features * self.d_in,
            "b_enc": self.features,
            "W_dec": self.features * self.written,
            "b_dec": self.d_out,
        }
        if config.kind == "skip-transcoder":
            counts["W_skip"] = self.d_out * self.d_in
        if config.activation == "jumprelu":
            counts["threshold"] = self.features
        return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training as `train` would run it.

    Attributes:
        plan: what decides its result.
        widths: of every site.
        model: the model's sizes.
        cache: what a cache of its activations stores; None without one.
        shuffled: whether that cache is read in a shuffled order.
    """

    plan: RunPlan
    widths: dict[AnySite, int]
    model: ModelShape
    cache: str | None = None
    shuffled: bool = False

    @property
    def config(self) -> TrainConfig:
        """The settings of every dictionary."""
        return self.plan.config

    @property
    def block_tokens(self) -> int:
        """Tokens that the model reads into one block."""
        return tokens_a_block(list(self.widths.values()))

    @property
    def pass_tokens(self) -> int:
        """Positions of one forward pass."""
        return max(FORWARD_TOKENS, self.plan.harvest.context_length)

    def dictionary(self, layer: int, processes: int = 1) -> DictionaryShape:
        """A layer's dictionary, or the share of it where features are spread over processes."""
        sites = self.plan.sites[layer]
        d_out = self.widths[sites.write]
        return DictionaryShape(
            d_in=self.widths[sites.read],
            d_out=d_out,
            slots=1 + len(self.plan.later(layer)),
            features=-(-self.config.features(d_out) // processes),
        )

    def share(self, layout: Layout) -> "Share":
        """What the process with most to hold has."""
        layers = list(self.plan.sites)
        count = -(-len(layers) // layout.layers)
        kept = layers[:count]
        return Share(
            batch=self.config.batch_tokens // layout.data,
            layers=kept,
            width=self._width(kept),
            dictionaries=[self.dictionary(layer, layout.features) for layer in kept],
            layout=layout,
        )

    def _width(self, layers: Iterable[int]) -> int:
        """Values a token at the sites of some layers, each site counted once."""
        sites = dict.fromkeys(site for layer in layers for site in self.plan.sites[layer])
        return sum(self.widths[site] for site in sites)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process has of a training.

    Attributes:
        batch: tokens of a step.
        layers: whose dictionaries it trains.
        width: values a token at all the sites it keeps.
        dictionaries: its part of them.
        layout: of all processes.
    """

    batch: int
    layers: list[int]
    width: int
    dictionaries: list[DictionaryShape]
    layout: Layout

    def groups(self, kind: str) -> list[list[DictionaryShape]]:
        """Dictionaries that are stepped together: one by one, or all of a cross-layer's."""
        return [self.dictionaries] if kind == "clt" else [[each] for each in self.dictionaries]
