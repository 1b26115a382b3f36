"""The training of one layer's dictionary: scales, state and schedule together."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import AnySite
from pellucid.dictionaries import SAE, Dictionary, TopK, Transcoder
from pellucid.training.config import TrainConfig
from pellucid.training.optim import learning_rate
from pellucid.training.parameters import Parameters, initial_parameters
from pellucid.training.scales import Scales, measure_scale
from pellucid.training.step import StepMetrics, TrainState, low_precision, train_step

_DEAD_AFTER_MOST = 10_000_000  # tokens (Gao et al. 2024)
_DEAD_AFTER_SHARE = 20


@dataclass(slots=True)
class LayerTraining:
    """One dictionary in training. Takes and returns raw activations; scales stay inside.

    Attributes:
        config: the settings.
        total_tokens: length of the whole run, which fixes the schedule.
        read_site: what is read.
        write_site: what is written.
        scales: measured on the first batch.
        state: parameters, moments and counters.
    """

    config: TrainConfig
    total_tokens: int
    read_site: AnySite
    write_site: AnySite
    scales: Scales
    state: TrainState

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        x: Float[Tensor, "N d_in"],
        y: Float[Tensor, "N d_out"],
        *,
        read_site: AnySite,
        write_site: AnySite,
        total_tokens: int,
        generator: torch.Generator,
    ) -> "LayerTraining":
        """Measure scales and initialise from the first batch, which should also be stepped on.

        Args:
            config: the settings.
            x: what is read, raw.
            y: what is written, raw (the same as x for an SAE).
            read_site: where x comes from.
            write_site: where y comes from.
            total_tokens: length of the whole run.
            generator: a CPU generator, one a layer.

        Raises:
            DataError: activations that are all zero or not finite.
            ConfigError: k exceeds the number of features.
        """
        scales = Scales(measure_scale(x, str(read_site)), measure_scale(y, str(write_site)))
        x, y = x.float() * scales.read, y.float() * scales.write
        state = TrainState.start(config, initial_parameters(config, x, y, generator))
        return cls(config, total_tokens, read_site, write_site, scales, state)

    @property
    def total_steps(self) -> int:
        """How many steps the run has."""
        return max(1, self.total_tokens // self.config.batch_tokens)

    @property
    def dead_after(self) -> int:
        """Tokens without firing after which a feature counts as dead."""
        default = min(_DEAD_AFTER_MOST, self.total_tokens // _DEAD_AFTER_SHARE)
        return self.config.dead_after or max(1, default)

    def step(self, x: Float[Tensor, "N d_in"], y: Float[Tensor, "N d_out"]) -> StepMetrics:
        """Train on a batch of raw activations.

        Raises:
            DictionaryError: the loss is not finite; nothing was changed.
        """
        rate = learning_rate(
            self.config, self.state.steps, self.total_steps, len(self.state.parameters.b_enc)
        )
        return train_step(
            self.config,
            self.state,
            x.float() * self.scales.read,
            y.float() * self.scales.write,
            rate=rate,
            dead_after=self.dead_after,
        )

    def dictionary(self) -> Dictionary:
        """The dictionary as trained so far, for raw activations."""
        tensors = self.state.parameters.unscaled(self.scales).tensors()
        kind = SAE if self.config.kind == "sae" else Transcoder
        return kind(
            **tensors,
            activation=TopK(self.config.k),
            read_site=self.read_site,
            write_site=self.write_site,
        )

    def tensors(self) -> dict[str, Tensor]:
        """All that changes, for a checkpoint: with `restore`, training continues bit for bit."""
        state = self.state
        groups = {"parameters": state.parameters, "first": state.first, "second": state.second}
        named = {
            f"{group}.{name}": tensor
            for group, part in groups.items()
            for name, tensor in part.tensors().items()
        }
        scales = torch.tensor([self.scales.read, self.scales.write], dtype=torch.float64)
        steps = torch.tensor(state.steps)
        return named | {"idle_tokens": state.idle_tokens, "steps": steps, "scales": scales}

    @classmethod
    def restore(
        cls,
        config: TrainConfig,
        tensors: Mapping[str, Tensor],
        *,
        read_site: AnySite,
        write_site: AnySite,
        total_tokens: int,
    ) -> "LayerTraining":
        """The training that `tensors` was called on, given the settings it was started with."""
        groups: dict[str, dict[str, Tensor]] = {"parameters": {}, "first": {}, "second": {}}
        for key, tensor in tensors.items():
            group, _, name = key.partition(".")
            if name:
                groups[group][name] = tensor
        parameters, first, second = (Parameters.from_tensors(part) for part in groups.values())
        state = TrainState(
            parameters,
            first,
            second,
            idle_tokens=tensors["idle_tokens"],
            steps=int(tensors["steps"]),
            W_enc_low=low_precision(config, parameters),
        )
        scales = Scales(*tensors["scales"].tolist())
        return cls(config, total_tokens, read_site, write_site, scales, state)
