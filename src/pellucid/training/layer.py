"""The training of one layer's dictionary: scales, state and schedule together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.types import AnySite
from pellucid.dictionaries import SAE, CrossLayerTranscoder, Dictionary, Transcoder
from pellucid.distributed.team import ALONE, Teams
from pellucid.training.activations import RULES
from pellucid.training.config import TrainConfig
from pellucid.training.initial import initial_parameters
from pellucid.training.optim import learning_rate
from pellucid.training.parameters import Parameters
from pellucid.training.scales import Scales, measure_scale
from pellucid.training.state import TrainState, low_precision
from pellucid.training.step import StepMetrics, train_step

_DEAD_AFTER_MOST = 10_000_000  # tokens (Gao et al. 2024)
_DEAD_AFTER_SHARE = 20
_KINDS: dict[str, type[Dictionary]] = {"sae": SAE, "clt": CrossLayerTranscoder}


@dataclass(slots=True)
class LayerTraining:
    """One dictionary in training. Takes and returns raw activations; scales stay inside.

    Attributes:
        config: the settings.
        total_tokens: length of the whole run, which fixes the schedule.
        read_site: what is read.
        write_site: what is written.
        scales: measured on the first batch.
        later: scales of what further slots write, in a cross-layer transcoder.
        state: parameters, moments and counters.
        teams: over which processes tokens and features are spread.
    """

    config: TrainConfig
    total_tokens: int
    read_site: AnySite
    write_site: AnySite
    scales: Scales
    later: tuple[float, ...]
    state: TrainState
    teams: Teams = ALONE

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
        later: Sequence[Float[Tensor, "N d_out"]] = (),
        teams: Teams = ALONE,
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
            later: what further slots write, in a cross-layer transcoder.
            teams: over which processes tokens and features are spread.

        Raises:
            DataError: activations that are all zero or not finite.
            ConfigError: k exceeds the number of features.
        """
        read = measure_scale(x, str(read_site), teams.tokens)
        write, *others = (measure_scale(z, str(write_site), teams.tokens) for z in (y, *later))
        parameters = initial_parameters(
            config,
            x.float() * read,
            y.float() * write,
            generator,
            slots=1 + len(others),
            teams=teams,
        )
        state = TrainState.start(config, parameters)
        sites = (read_site, write_site)
        return cls(config, total_tokens, *sites, Scales(read, write), tuple(others), state, teams)

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
        return step_together([self], [x], [y])[0]

    def dictionary(self) -> Dictionary:
        """The dictionary as trained so far, for raw activations."""
        config, state = self.config, self.state
        trained = state.parameters if state.average is None else state.average
        tensors = trained.unscaled(self.scales, self.later).tensors()
        tensors.pop("threshold", None)
        if config.kind == "clt":
            tensors["W_dec"] = tensors["W_dec"].unflatten(1, (1 + len(self.later), -1))
        return _KINDS.get(config.kind, Transcoder)(
            **tensors,
            activation=RULES[config.activation].activation(config, trained, state.cut),
            read_site=self.read_site,
            write_site=self.write_site,
        )

    def finish(self) -> Dictionary:
        """The dictionary of a training that is over, once the memory of its moments is free."""
        self.state.first = self.state.second = self.state.parameters
        self.state.W_enc_low = None
        return self.dictionary()

    def tensors(self) -> dict[str, Tensor]:
        """All that changes, for a checkpoint: with `restore`, training continues bit for bit."""
        state = self.state
        groups = {"parameters": state.parameters, "first": state.first, "second": state.second}
        if state.average is not None:
            groups["average"] = state.average
        named = {
            f"{group}.{name}": tensor
            for group, part in groups.items()
            for name, tensor in part.tensors().items()
        }
        scales = (self.scales.read, self.scales.write, *self.later)
        return named | {
            "idle_tokens": state.idle_tokens,
            "steps": torch.tensor([state.steps]),
            "cut": torch.tensor([state.cut], dtype=torch.float64),
            "scales": torch.tensor(scales, dtype=torch.float64),
        }

    @classmethod
    def restore(
        cls,
        config: TrainConfig,
        tensors: Mapping[str, Tensor],
        *,
        read_site: AnySite,
        write_site: AnySite,
        total_tokens: int,
        teams: Teams = ALONE,
    ) -> "LayerTraining":
        """The training that `tensors` was called on, given the settings it was started with."""
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            group, _, name = key.partition(".")
            if name:
                groups.setdefault(group, {})[name] = tensor
        parts = {group: Parameters.from_tensors(named) for group, named in groups.items()}
        state = TrainState(
            parts["parameters"],
            parts["first"],
            parts["second"],
            idle_tokens=tensors["idle_tokens"],
            steps=int(tensors["steps"]),
            cut=float(tensors["cut"]),
            average=parts.get("average"),
            W_enc_low=low_precision(config, parts["parameters"]),
        )
        read, write, *later = tensors["scales"].tolist()
        sites = (read_site, write_site)
        return cls(config, total_tokens, *sites, Scales(read, write), tuple(later), state, teams)


def step_together(
    trainings: Sequence[LayerTraining],
    xs: Sequence[Float[Tensor, "N d_in"]],
    ys: Sequence[Float[Tensor, "N d_out"]],
) -> list[StepMetrics]:
    """Train dictionaries whose outputs add up, on a batch of raw activations.

    Args:
        trainings: one dictionary, or those of all layers of a cross-layer transcoder.
        xs: what each reads.
        ys: what each should write to its first slot.

    Raises:
        DictionaryError: the loss is not finite; nothing was changed.
    """
    first = trainings[0]
    num_features = len(first.state.parameters.b_enc) * first.teams.features.size
    return train_step(
        first.config,
        [each.state for each in trainings],
        [x.float() * each.scales.read for each, x in zip(trainings, xs, strict=True)],
        [y.float() * each.scales.write for each, y in zip(trainings, ys, strict=True)],
        rate=learning_rate(first.config, first.state.steps, first.total_steps, num_features),
        dead_after=first.dead_after,
        teams=first.teams,
    )
