"""The settings of a training run, each default with its source."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch

from pellucid.core.errors import ConfigError
from pellucid.kernels.native import multiplies_bfloat16

_CHOICES = {
    "kind": ("transcoder", "skip-transcoder", "sae", "clt"),
    "activation": ("topk", "batchtopk", "jumprelu", "relu"),
    "decoder_norm": ("free", "unit"),
    "precision": ("auto", "float32", "bfloat16"),
}
_ONLY_WITH = {  # a setting -> the activations that it means something to
    "sparsity": ("jumprelu", "relu"),
    "bandwidth": ("jumprelu",),
    "cut_memory": ("batchtopk",),
}


def takes(activation: str, setting: str) -> bool:
    """Whether a setting of `TrainConfig` means something to an activation."""
    return activation in _ONLY_WITH.get(setting, _CHOICES["activation"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train one dictionary a layer. Every layer gets the same settings.

    Attributes:
        kind: what to train: "transcoder", "skip-transcoder" (with a linear path), "sae", or "clt":
            a cross-layer transcoder, whose features write to their own layer and every later one.
        activation: "topk"; "batchtopk", the k times as many as tokens largest of a batch (Bussmann
            et al. 2024), saved as a JumpReLU with one threshold; "jumprelu", thresholds learnt with
            straight-through gradients (Rajamanoharan et al. 2024); "relu", with an L1 penalty.
        num_features: features of a dictionary, F; by default `expansion` times the width it writes.
        expansion: F as a multiple of the width written (32: EleutherAI sparsify).
        k: features active a token (32: EleutherAI sparsify): exactly that many at most for topk,
            on average for batchtopk, the aim of jumprelu's penalty, and what relu starts with.
        prefixes: Matryoshka (Bussmann et al. 2025): sizes, rising, of first parts of the dictionary
            that each reconstruct alone too; the loss is the mean over them and the whole.
        sparsity: jumprelu: weight of (L0 / k - 1)^2, 0.1 by default; relu: weight of the L1 penalty
            mean_tokens sum_f a_f |W_dec_f| / sqrt(d_out), 0.05 by default, which decides L0
            (both measured: docs/training.md).
        bandwidth: jumprelu: width of the window around a threshold within which it learns, for
            pre-activations whose standard deviation is about 1 at the start; 0.5 by default.
        cut_memory: batchtopk: how much of the inference threshold's running mean stays a step, 0.9
            by default.
        decoder_norm: "free", or "unit": a feature's decoder row is kept at norm 1 (Bricken et al.
            2023), its gradient less the part along the row.
        average: keep a running mean of the weights, of which this share stays a step, and save
            that instead of the last ones (Gao et al. 2024 use 0.999); by default none is kept.
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
            optimiser state and every other computation are float32 in both. "auto" is bfloat16
            where the device multiplies it natively, else float32; `train` decides it at the start,
            and the run's record has what was decided.
        seed: of initial parameters (each layer draws its own).

    Raises:
        ConfigError: a value out of range, unknown, or not available yet.
    """

    kind: Literal["transcoder", "skip-transcoder", "sae", "clt"] = "transcoder"
    activation: Literal["topk", "batchtopk", "jumprelu", "relu"] = "topk"
    num_features: int | None = None
    expansion: int = 32
    k: int = 32
    prefixes: tuple[int, ...] = ()
    sparsity: float | None = None
    bandwidth: float | None = None
    cut_memory: float | None = None
    decoder_norm: Literal["free", "unit"] = "free"
    average: float | None = None
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
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"unknown {name} {value!r}; use one of {', '.join(choices)}")
        for name in ("num_features", "expansion", "k", "aux_k", "dead_after", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; give a positive number")
        for name in ("aux_coefficient", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give 0 or a positive number")
        for name in ("decay_share", "beta1", "beta2", "cut_memory"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; give a number from 0 to 1")
        if self.average is not None and not 0 < self.average < 1:
            raise ConfigError(f"average is {self.average}; give a number above 0 and below 1")
        for name in ("learning_rate", "epsilon", "sparsity", "bandwidth"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; give a positive number")

        for name, activations in _ONLY_WITH.items():
            if getattr(self, name) is not None and not takes(self.activation, name):
                raise ConfigError(
                    f"{name} is {getattr(self, name)} but means nothing to {self.activation}; "
                    f"leave it out, or train {' or '.join(activations)}"
                )
        object.__setattr__(self, "prefixes", tuple(self.prefixes))  # JSON has lists
        rising = all(a < b for a, b in pairwise((0, *self.prefixes)))
        if not rising:
            raise ConfigError(
                f"prefixes are {', '.join(map(str, self.prefixes))}; give positive numbers that "
                "rise"
            )

    def features(self, d_out: int) -> int:
        """F of a dictionary that writes width `d_out`.

        Raises:
            ConfigError: k or a prefix exceeds it, or the one prefix there is has all of it.
        """
        count = self.num_features or self.expansion * d_out
        if self.k > count:
            raise ConfigError(
                f"k is {self.k} but there are only {count} features; lower k or add features"
            )
        if self.prefixes and self.prefixes[-1] > count:
            raise ConfigError(
                f"prefix {self.prefixes[-1]} exceeds the {count} features; lower it or add features"
            )
        if self.prefixes == (count,):
            raise ConfigError(
                f"prefix {count} is all {count} features, which reconstruct anyway; give a smaller "
                "one, or none"
            )
        return count

    def parts(self, num_features: int) -> list[tuple[int, int]]:
        """The first feature of each part that a prefix ends, and the one after its last."""
        ends = sorted({*self.prefixes, num_features})
        return list(pairwise((0, *ends)))

    def decided(self, device: torch.device) -> "TrainConfig":
        """The same with the precision that "auto" means on a device."""
        if self.precision != "auto":
            return self
        return replace(self, precision="bfloat16" if multiplies_bfloat16(device) else "float32")

    def multiplied_in(self) -> Literal["float32", "bfloat16"]:
        """The precision of matrix products; float32 while it is not decided."""
        return "float32" if self.precision == "auto" else self.precision

    def encoder_dtype(self) -> torch.dtype:
        """The dtype of the encoder's matrix product."""
        return torch.bfloat16 if self.multiplied_in() == "bfloat16" else torch.float32


def check_positive(**counts: int | None) -> None:
    """Refuse counts below 1; None is none given.

    Raises:
        ConfigError: names the first.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; give a positive number")
