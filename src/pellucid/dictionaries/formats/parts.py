"""The tensors of one dictionary while it changes format, and what folds into them exactly.

What a foreign format computes beside `activation(x W_enc^T + b_enc) W_dec + b_dec`, where it is
linear, is folded into these tensors. Products are taken in float64 and rounded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import AnySite, Site
from pellucid.dictionaries.activations import Activation, JumpReLU, ReLU, SignedTopK, TopK
from pellucid.dictionaries.base import Dictionary
from pellucid.dictionaries.clt import CrossLayerTranscoder
from pellucid.dictionaries.sae import SAE
from pellucid.dictionaries.transcoder import Transcoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A dictionary without sites.

    Attributes:
        W_enc, b_enc: the encoder, rows are features.
        W_dec, b_dec: the decoder, rows are features; [F, slots, d] of a cross-layer transcoder.
        W_skip: the linear path beside the features, [d_out, d_in].
        activation: what makes codes of pre-activations.
    """

    W_enc: Float[Tensor, "F d_in"]
    b_enc: Float[Tensor, " F"]
    W_dec: Float[Tensor, "F *slots d_out"]
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    activation: Activation

    @classmethod
    def of(cls, dictionary: Dictionary) -> "Parts":
        """Those of a dictionary."""
        return cls(
            W_enc=dictionary.W_enc.detach(),
            b_enc=dictionary.b_enc.detach(),
            W_dec=dictionary.W_dec.detach(),
            b_dec=dictionary.b_dec.detach(),
            W_skip=None if dictionary.W_skip is None else dictionary.W_skip.detach(),
            activation=dictionary.activation,
        )

    def build(self, read_site: AnySite, write_site: AnySite) -> Dictionary:
        """The dictionary at these sites: cross-layer by its shape, an SAE where they are one.

        Raises:
            DictionaryError: shapes that do not fit each other.
        """
        kind: type[Dictionary] = SAE if read_site == write_site else Transcoder
        if self.W_dec.ndim == 3:
            kind = CrossLayerTranscoder
        return kind(
            W_enc=self.W_enc.contiguous(),
            b_enc=self.b_enc.contiguous(),
            W_dec=self.W_dec.contiguous(),
            b_dec=self.b_dec.contiguous(),
            W_skip=None if self.W_skip is None else self.W_skip.contiguous(),
            activation=self.activation,
            read_site=read_site,
            write_site=write_site,
        )

    def reading_raw(self) -> "Parts":
        """The same SAE for one that encodes x itself, not x - b_dec: b_enc takes W_enc b_dec."""
        _check_widths(self)
        shift = self.W_enc.double() @ self.b_dec.double()
        return replace(self, b_enc=_rounded(self.b_enc.double() + shift, self.b_enc))

    def scaled(self, inputs: float, outputs: Sequence[float]) -> "Parts":
        """The same function for one that reads `inputs` x and writes y / `outputs` (one a slot).

        pre = (s x) W + b is s times x W + b / s; a feature's activation is then that of x, and the
        factor s goes into the decoder. (No format has a skip path beside scaled inputs.)
        """
        assert self.W_skip is None
        factors = inputs / torch.tensor(outputs, dtype=torch.float64)
        if self.W_dec.ndim == 3:
            factors = factors[:, None]
        return replace(
            self,
            b_enc=_rounded(self.b_enc.double() / inputs, self.b_enc),
            W_dec=_rounded(self.W_dec.double() * factors, self.W_dec),
            b_dec=_rounded(self.b_dec.double() / outputs[0], self.b_dec),
            activation=_scaled_threshold(self.activation, 1 / inputs),
        )

    def with_scaled_inputs(self, factor: float) -> "Parts":
        """The same SAE for one that is given `factor` x and whose output is divided by it.

        Unlike `scaled` it leaves activations as they are: the encoder takes the factor.
        """
        return replace(
            self,
            W_enc=_rounded(self.W_enc.double() * factor, self.W_enc),
            W_dec=_rounded(self.W_dec.double() / factor, self.W_dec),
            b_dec=_rounded(self.b_dec.double() / factor, self.b_dec),
        )

    def selected_by_norm(self) -> "Parts":
        """The same function for one that selects by pre-activation times decoder norm.

        Features are measured in that product: encoders are multiplied by the norm of their decoder,
        which gets norm 1. Their thresholds apply to the product already. A feature that writes
        nothing never fires.
        """
        norms = self.W_dec.double().flatten(1).norm(dim=1)
        lengths = norms.where(norms > 0, 1.0)[(...,) + (None,) * (self.W_dec.ndim - 1)]
        return replace(
            self,
            W_enc=_rounded(self.W_enc.double() * norms[:, None], self.W_enc),
            b_enc=_rounded(self.b_enc.double() * norms, self.b_enc),
            W_dec=_rounded(self.W_dec.double() / lengths, self.W_dec),
        )

    def after_gain(self, gain: Float[Tensor, " d"], bias: Float[Tensor, " d"] | None) -> "Parts":
        """The same function of `x * gain + bias` as these are of x: reads `mlp_in`.

        Raises:
            DictionaryError: a gain of 0, whose coordinate cannot be had back.
        """
        gain = gain.detach().double().cpu()
        if bool((gain == 0).any()):
            raise DictionaryError(
                f"the norm before the MLP has a gain of 0 at coordinate "
                f"{int((gain == 0).nonzero()[0])}, so what it normalises cannot be had back from "
                "what the MLP reads; these dictionaries cannot be moved behind it"
            )
        shift = None if bias is None else -bias.detach().double().cpu() / gain
        return self._of_affine(1 / gain, shift)

    def before_gain(self, gain: Float[Tensor, " d"], bias: Float[Tensor, " d"] | None) -> "Parts":
        """The same function of x as these are of `x * gain + bias`: the inverse of `after_gain`."""
        shift = None if bias is None else bias.detach().double().cpu()
        return self._of_affine(gain.detach().double().cpu(), shift)

    def _of_affine(self, scale: Float[Tensor, " d"], shift: Float[Tensor, " d"] | None) -> "Parts":
        """The same function of z, where these read x = z * scale + shift."""
        device = self.W_enc.device
        scale, shift = scale.to(device), None if shift is None else shift.to(device)
        b_enc, b_dec = self.b_enc.double(), self.b_dec.double()
        if shift is not None:
            b_enc = b_enc + self.W_enc.double() @ shift
            if self.W_skip is not None:
                b_dec = b_dec + self.W_skip.double() @ shift
        skip = None
        if self.W_skip is not None:
            skip = _rounded(self.W_skip.double() * scale, self.W_skip)
        return replace(
            self,
            W_enc=_rounded(self.W_enc.double() * scale, self.W_enc),
            b_enc=_rounded(b_enc, self.b_enc),
            b_dec=_rounded(b_dec, self.b_dec),
            W_skip=skip,
        )


def gated(
    *,
    W_enc: Float[Tensor, "F d_in"],
    W_dec: Float[Tensor, "F d_out"],
    b_dec: Float[Tensor, " d_out"],
    r_mag: Float[Tensor, " F"],
    b_mag: Float[Tensor, " F"],
    b_gate: Float[Tensor, " F"],
) -> Parts:
    """A gated SAE (Rajamanoharan et al. 2024), which is a JumpReLU SAE because its gate is tied.

    It gives relu(e^r u + b_mag) where u + b_gate > 0, u = W_enc x. As e^r > 0, the gate is open
    exactly where e^r u + b_mag > b_mag - e^r b_gate, and that is the threshold.
    """
    stretch = r_mag.double().exp()
    threshold = (b_mag.double() - stretch * b_gate.double()).clamp_min(0)
    return Parts(
        W_enc=_rounded(W_enc.double() * stretch[:, None], W_enc),
        b_enc=b_mag,
        W_dec=W_dec,
        b_dec=b_dec,
        activation=JumpReLU(_rounded(threshold, b_mag)),
    )


def clamped_jumprelu(threshold: Float[Tensor, " F"]) -> JumpReLU:
    """JumpReLU for a format that takes max(pre, 0) where pre > threshold: none is negative."""
    return JumpReLU(threshold.clamp_min(0))


def same_activation(a: Activation, b: Activation) -> bool:
    """Whether both are the same function, thresholds aside."""
    return type(a) is type(b) and a.settings() == b.settings()


def describe(activation: Activation) -> str:
    """An activation in words, for messages."""
    words = {TopK: "TopK", SignedTopK: "TopK of either sign", ReLU: "ReLU", JumpReLU: "JumpReLU"}
    return words.get(type(activation), activation.name)


def layer_of(site: AnySite) -> int | None:
    """The layer a site belongs to; None where its name has no number."""
    if isinstance(site, Site):
        return max(site.layer, 0)
    numbers = [part for part in site.path.split(".") if part.isdigit()]
    return int(numbers[0]) if numbers else None


def _scaled_threshold(activation: Activation, factor: float) -> Activation:
    if not isinstance(activation, JumpReLU):
        return activation
    threshold = activation.threshold.detach()
    return JumpReLU(_rounded(threshold.double() * factor, threshold))


def _check_widths(parts: Parts) -> None:
    if parts.W_enc.shape[1] != parts.b_dec.shape[0]:
        raise DictionaryError(
            f"an SAE reads width {parts.W_enc.shape[1]} but its b_dec has {parts.b_dec.shape[0]}; "
            "the file is not whole"
        )


def _rounded(value: Tensor, like: Tensor) -> Tensor:
    """In the type of `like`, at least float32."""
    return value.to(torch.promote_types(like.dtype, torch.float32))
