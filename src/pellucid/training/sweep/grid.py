"""Which trainings a sweep is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pellucid.core.errors import ConfigError
from pellucid.training.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination of these is one training; everything else is the same in all.

    Attributes:
        k: active features a token.
        features: features of a dictionary.
        kinds: see `TrainConfig.kind`.
        activations: see `TrainConfig.activation`.
        seeds: of initial parameters and of the order of tokens; the text is the same.
        batch_tokens: tokens a step, in every training.

    Raises:
        ConfigError: a list is empty or names a value twice, or `TrainConfig` refuses a combination.
    """

    k: Sequence[int]
    features: Sequence[int]
    kinds: Sequence[str] = ("transcoder",)
    activations: Sequence[str] = ("topk",)
    seeds: Sequence[int] = (0,)
    batch_tokens: int = 4096

    def __post_init__(self) -> None:
        for name in ("k", "features", "kinds", "activations", "seeds"):
            values = tuple(getattr(self, name))
            if not values:
                raise ConfigError(f"{name} of the grid is empty; give at least one value")
            if len(set(values)) < len(values):
                listed = ", ".join(map(str, values))
                raise ConfigError(f"{name} of the grid is {listed}; name each value once")
            object.__setattr__(self, name, values)
        self.configs()

    def configs(self) -> dict[str, TrainConfig]:
        """The settings of every training by its name, seeds of one setting together."""
        found = {}
        for kind, activation, features, k, seed in product(
            self.kinds, self.activations, self.features, self.k, self.seeds
        ):
            config = TrainConfig(
                kind=kind,  # type: ignore[arg-type]  # TrainConfig checks it
                activation=activation,  # type: ignore[arg-type]
                num_features=features,
                k=k,
                seed=seed,
                batch_tokens=self.batch_tokens,
            )
            config.features(features)
            found[f"run-{kind}-{activation}-f{features}-k{k}-s{seed}"] = config
        return found
