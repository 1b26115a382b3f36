"""The settings of a training run, each default with its source."""

from dataclasses import dataclass
from typing import Literal

import torch

from pellucid.core.errors import ConfigError

# Named by the command line, not trainable in this version.
_LATER = {"kind": ("clt",), "activation": ("batchtopk", "jumprelu", "relu")}
_CHOICES = {
    "kind": ("transcoder", "skip-transcoder", "sae"),
    "activation": ("topk",),
    "precision": ("float32", "bfloat16"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train one dictionary a layer. Every layer gets the same settings.

    Attributes:
        kind: what to train: "transcoder", "skip-transcoder" (with a linear path) or "sae".
        activation: "topk".
        num_features: features of a dictionary, F; by default `expansion` times the width it writes.
        expansion: F as a multiple of the width written (32: EleutherAI sparsify).
        k: features kept a token (32: EleutherAI sparsify).
        aux_coefficient: weight of the auxiliary loss on dead features (1/32: Gao et al. 2024).
        aux_k: dead features that take part in it a token; by default half the width written
            (Gao et al. 2024).
        dead_after: tokens without firing after which a feature counts as dead. By default 10M
            (Gao et al. 2024) or, in a run shorter than 200M tokens, a twentieth of it.
        learning_rate: Adam's peak rate; by default 1e-3 / sqrt(F / 2^14): the rule of Gao et al.
            (2024), five times as high, because runs here are millions of tokens, not billions
            (measured: docs/log.md).
        warmup_steps: steps of linear warm-up (1000: sparsify), at most a tenth of the run.
        decay_share: share of the run at whose end the rate falls linearly to 0.
        beta1: Adam's decay of the gradient's mean (Kingma and Ba 2015).
        beta2: Adam's decay of the squared gradient's mean (Kingma and Ba 2015).
        epsilon: Adam's divisor floor (6.25e-10: Gao et al. 2024, for gradients of mean losses).
        batch_tokens: tokens a step.
        precision: dtype of the encoder's matrix product, by far the largest cost. Parameters,
            optimiser state and every other computation are float32 in both.
        seed: of initial parameters (each layer draws its own).

    Raises:
        ConfigError: a value out of range, unknown, or not available yet.
    """

    kind: Literal["transcoder", "skip-transcoder", "sae"] = "transcoder"
    activation: Literal["topk"] = "topk"
    num_features: int | None = None
    expansion: int = 32
    k: int = 32
    aux_coefficient: float = 1 / 32
    aux_k: int | None = None
    dead_after: int | None = None
    learning_rate: float | None = None
    warmup_steps: int = 1000
    decay_share: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 6.25e-10
    batch_tokens: int = 4096
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value in _LATER.get(name, ()):
                raise ConfigError(
                    f"{name} {value!r} is not available yet; use one of {', '.join(choices)}"
                )
            if value not in choices:
                raise ConfigError(f"unknown {name} {value!r}; use one of {', '.join(choices)}")
        for name in ("num_features", "expansion", "k", "aux_k", "dead_after", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; give a positive number")
        for name in ("aux_coefficient", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give 0 or a positive number")
        for name in ("decay_share", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a number from 0 to 1")
        for name in ("learning_rate", "epsilon"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; give a positive number")

    def features(self, d_out: int) -> int:
        """F of a dictionary that writes width `d_out`.

        Raises:
            ConfigError: k exceeds it.
        """
        count = self.num_features or self.expansion * d_out
        if self.k > count:
            raise ConfigError(
                f"k is {self.k} but there are only {count} features; lower k or add features"
            )
        return count

    def encoder_dtype(self) -> torch.dtype:
        """The dtype of the encoder's matrix product."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32
