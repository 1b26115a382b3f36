"""Which trainings a sweep is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pellucid.core.errors import ConfigError
from pellucid.training.config import TrainConfig, takes

_LISTS = ("k", "features", "kinds", "activations", "sparsities", "learning_rates", "seeds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination of these is one training; everything else is the same in all.

    A sparsity is combined with the activations that take one.

    Attributes:
        k: active features a token.
        features: features of a dictionary.
        kinds: see `TrainConfig.kind`.
        activations: see `TrainConfig.activation`.
        sparsities: see `TrainConfig.sparsity`, whose default is None.
        learning_rates: see `TrainConfig.learning_rate`, whose default is None.
        seeds: of initial parameters and of the order of tokens; the text is the same.
        batch_tokens: tokens a step, in every training.

    Raises:
        ConfigError: a list is empty or names a value twice, no activation takes a sparsity, or
            `TrainConfig` refuses a combination.
    """

    k: Sequence[int]
    features: Sequence[int]
    kinds: Sequence[str] = ("transcoder",)
    activations: Sequence[str] = ("topk",)
    sparsities: Sequence[float | None] = (None,)
    learning_rates: Sequence[float | None] = (None,)
    seeds: Sequence[int] = (0,)
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        for name in _LISTS:
            values = tuple(getattr(self, name))
            if not values:
                raise ConfigError(f"{name} of the grid is empty; give at least one value")
            if len(set(values)) < len(values):
                listed = ", ".join(map(str, values))
                raise ConfigError(f"{name} of the grid is {listed}; name each value once")
            object.__setattr__(self, name, values)
        self.configs()
        taken = any(takes(activation, "sparsity") for activation in self.activations)
        if self.sparsities != (None,) and not taken:
            raise ConfigError(
                f"sparsities mean nothing to {', '.join(self.activations)}; leave them out, or add "
                "jumprelu or relu to the activations"
            )

    def configs(self) -> dict[str, TrainConfig]:
        """The settings of every training by its name, seeds of one setting together."""
        found = {}
        for kind, activation, features, k, sparsity, rate, seed in product(
            self.kinds,
            self.activations,
            self.features,
            self.k,
            self.sparsities,
            self.learning_rates,
            self.seeds,
        ):
            config = TrainConfig(
                kind=kind,  # type: ignore[arg-type]  # TrainConfig checks it
                activation=activation,  # type: ignore[arg-type]
                num_features=features,
                k=k,
                sparsity=sparsity if takes(activation, "sparsity") else None,
                learning_rate=rate,
                seed=seed,
                batch_tokens=self.batch_tokens,
            )
            config.features(features)
            found[_name(config)] = config
        return found


def _name(config: TrainConfig) -> str:
    """What a training's folder is called; settings that are left to their defaults are left out."""
    parts = [f"run-{config.kind}-{config.activation}-f{config.num_features}-k{config.k}"]
    if config.sparsity is not None:
        parts.append(f"sparsity{config.sparsity}")
    if config.learning_rate is not None:
        parts.append(f"rate{config.learning_rate}")
    return "-".join([*parts, f"s{config.seed}"])
