"""The abstract dictionary: sparse codes of one site that reconstruct the same or another site."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pellucid.core.errors import DictionaryError
from pellucid.core.types import AnySite, SparseCodes
from pellucid.dictionaries.activations import Activation
from pellucid.kernels.dispatch import decode, encode, is_tracked

ACTIVATION_PREFIX = "activation_function."
_BLOCK_VALUES = 2**23  # pre-activations held at once: 32 MiB in float32


class Dictionary(nn.Module, ABC):
    """A sparse linear dictionary between two sites of a model.

    With W_enc [F, d_in], b_enc [F], W_dec [F, d_out], b_dec [d_out], and for some
    W_skip [d_out, d_in] (the orientation of circuit-tracer):

        codes  = activation(encoder_input(x) @ W_enc.T + b_enc)
        output = codes @ W_dec + b_dec (+ x @ W_skip.T)

    Parameters are frozen (training keeps its own and builds a dictionary at the end). Inputs are
    converted to the dictionary's compute dtype, which results have too: that of its parameters,
    unless they are kept in a smaller one (see `checkpoint.load_dictionaries`).

    A cross-layer transcoder writes to several sites, each through its own decoder: "slot" 0 is the
    write site, slot j the one j layers later; every other kind has slot 0 alone.

    Raises:
        DictionaryError: shapes that do not fit each other, or the activation.
    """

    kind: ClassVar[str]
    decoder_dimensions: ClassVar[int] = 2

    def __init__(
        self,
        *,
        W_enc: Float[Tensor, "F d_in"],
        b_enc: Float[Tensor, " F"],
        W_dec: Float[Tensor, "F d_out"],
        b_dec: Float[Tensor, " d_out"],
        W_skip: Float[Tensor, "d_out d_in"] | None = None,
        activation: Activation,
        read_site: AnySite,
        write_site: AnySite,
    ) -> None:
        super().__init__()
        _check_shapes(W_enc, b_enc, W_dec, b_dec, W_skip, self.decoder_dimensions)
        activation.check(W_enc.shape[0])
        self.W_enc = nn.Parameter(W_enc, requires_grad=False)
        self.b_enc = nn.Parameter(b_enc, requires_grad=False)
        self.W_dec = nn.Parameter(W_dec, requires_grad=False)
        self.b_dec = nn.Parameter(b_dec, requires_grad=False)
        self.W_skip = None if W_skip is None else nn.Parameter(W_skip, requires_grad=False)
        self.activation = activation
        self.read_site = read_site
        self.write_site = write_site
        self.compute_dtype = self.W_enc.dtype
        self._check_kind()

    def _apply(self, *args: Any, **options: Any) -> "Dictionary":
        super()._apply(*args, **options)
        self.compute_dtype = self.W_enc.dtype
        return self

    @property
    def d_in(self) -> int:
        """Width of what is read."""
        return self.W_enc.shape[1]

    @property
    def d_out(self) -> int:
        """Width of what is written."""
        return self.W_dec.shape[-1]

    @property
    def write_sites(self) -> tuple[AnySite, ...]:
        """What each slot writes to."""
        return (self.write_site,)

    @property
    def num_features(self) -> int:
        """How many features there are (F)."""
        return self.W_enc.shape[0]

    @abstractmethod
    def encoder_input(self, x: Float[Tensor, "N d_in"]) -> Float[Tensor, "N d_in"]:
        """What the encoder matrix multiplies: x itself, or x less the decoder's bias."""

    @abstractmethod
    def _check_kind(self) -> None:
        """Raise `DictionaryError` where the parts do not suit this kind of dictionary."""

    def pre_activations(self, x: Float[Tensor, "N d_in"]) -> Float[Tensor, "N F"]:
        """Dense pre-activations (N x F values: mind the memory)."""
        x = self.encoder_input(self._accept(x))
        if self.W_enc.dtype == x.dtype:
            return nn.functional.linear(x, self.W_enc, self.b_enc)
        pre = x.new_empty(len(x), self.num_features)
        rows = max(1, _BLOCK_VALUES // self.d_in)
        for start in range(0, self.num_features, rows):
            part = slice(start, start + rows)
            pre[:, part] = torch.addmm(
                self.b_enc[part].to(x.dtype), x, self.W_enc[part].to(x.dtype).T
            )
        return pre

    def encode(self, x: Float[Tensor, "N d_in"]) -> SparseCodes:
        """Feature activations of each row of x, computed by blocks of rows to bound memory.

        Where autograd tracks x or the encoder, gradients go back through the active features, and
        nothing of the size of all pre-activations is kept.
        """
        with torch.no_grad():
            rows = max(1, _BLOCK_VALUES // self.num_features)
            codes = _join([self.activation(self.pre_activations(part)) for part in x.split(rows)])
        if not is_tracked(x, self.W_enc, self.b_enc, self.b_dec) or not codes.values.shape[1]:
            return codes
        inputs = self.encoder_input(self._accept(x))
        weight, bias = self.W_enc.to(inputs.dtype), self.b_enc.to(inputs.dtype)
        return replace(codes, values=encode(inputs, weight, bias, codes.values, codes.indices))

    def activations_of(
        self, x: Float[Tensor, "N d_in"], tokens: Int[Tensor, " n"], features: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Activations of single features at single tokens.

        Only those features are encoded, unless the activation makes them depend on each other.

        Args:
            x: one row a token.
            tokens: row of each wanted activation.
            features: feature of each wanted activation.
        """
        inputs = self.encoder_input(self._accept(x))[tokens]
        bias = self.b_enc[features].to(inputs.dtype)
        pre = (inputs * self.encoder_rows(features).to(inputs.dtype)).sum(-1) + bias
        alone = self.activation.alone(pre, features)
        if alone is not None:
            return alone
        codes = self.encode(x)
        found = codes.indices[tokens] == features[:, None]
        return (codes.values[tokens] * found).sum(-1)

    def decoder(self, slot: int = 0) -> Float[Tensor, "F d_out"]:
        """The decoder matrix of a slot."""
        assert slot == 0, (self.kind, slot)
        return self.W_dec

    def decode(self, codes: SparseCodes, slot: int = 0) -> Float[Tensor, "N d_out"]:
        """What the features write to a slot: sum of a_i W_dec[i], and in slot 0 b_dec; no skip."""
        if codes.num_features != self.num_features:
            raise DictionaryError(
                f"codes of {codes.num_features} features cannot be decoded by a dictionary of "
                f"{self.num_features}; use the dictionary that made them"
            )
        if self.W_dec.dtype == self.compute_dtype and self.W_dec.ndim == 2:
            written = decode(codes.values.to(self.W_dec.dtype), codes.indices, self.W_dec)
        else:
            used, indices = codes.indices.unique(return_inverse=True)
            written = decode(
                codes.values.to(self.compute_dtype), indices, self.decoder_rows(used, slot)
            )
        return written + self.b_dec.to(self.compute_dtype) if slot == 0 else written

    def skip(self, x: Float[Tensor, "N d_in"]) -> Float[Tensor, "N d_out"] | None:
        """The linear path beside the features, x @ W_skip.T; None for a dictionary without one."""
        if self.W_skip is None:
            return None
        return nn.functional.linear(self._accept(x), self.W_skip.to(self.compute_dtype))

    def forward(self, x: Float[Tensor, "N d_in"]) -> Float[Tensor, "N d_out"]:
        """The whole reconstruction, skip path included."""
        output = self.decode(self.encode(x))
        linear = self.skip(x)
        return output if linear is None else output + linear

    def encoder_rows(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n d_in"]:
        """Encoder directions of the given features."""
        return self.W_enc[indices].to(self.compute_dtype)

    def decoder_rows(self, indices: Int[Tensor, " n"], slot: int = 0) -> Float[Tensor, "n d_out"]:
        """Decoder directions of the given features in a slot."""
        return self.decoder(slot)[indices].to(self.compute_dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by the name it is saved under (see `checkpoint`)."""
        tensors = {name: getattr(self, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
        if self.W_skip is not None:
            tensors["W_skip"] = self.W_skip
        return tensors | {ACTIVATION_PREFIX + n: t for n, t in self.activation.tensors().items()}

    def _accept(self, x: Float[Tensor, "N d_in"]) -> Float[Tensor, "N d_in"]:
        """The input in the compute dtype, once its width is right."""
        if x.shape[-1] != self.d_in:
            raise DictionaryError(
                f"the input has width {x.shape[-1]} but the dictionary reads width {self.d_in}; "
                "check that the dictionary belongs to this model and site"
            )
        return x.to(self.compute_dtype)


def _join(parts: Sequence[SparseCodes]) -> SparseCodes:
    """The codes of consecutive rows as one, padded to the widest part."""
    width = max(part.values.shape[1] for part in parts)
    padded = [
        [nn.functional.pad(codes, (0, width - codes.shape[1])) for codes in (p.values, p.indices)]
        for p in parts
    ]
    values, indices = (torch.cat(column) for column in zip(*padded, strict=True))
    return SparseCodes(values, indices, parts[0].num_features)


def _check_shapes(
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    W_skip: Tensor | None,
    decoder_dimensions: int,
) -> None:
    if W_enc.ndim != 2 or W_dec.ndim != decoder_dimensions:
        raise DictionaryError(
            f"W_enc has shape {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)}; they must have "
            f"2 and {decoder_dimensions} dimensions, the first of them one row a feature"
        )
    (num_features, d_in), d_out = W_enc.shape, W_dec.shape[-1]
    expected = [
        ("W_dec", W_dec, (num_features, *W_dec.shape[1:])),
        ("b_enc", b_enc, (num_features,)),
        ("b_dec", b_dec, (d_out,)),
    ]
    if W_skip is not None:
        expected.append(("W_skip", W_skip, (d_out, d_in)))
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise DictionaryError(
                f"{name} has shape {tuple(tensor.shape)} where the other tensors ask for {shape}; "
                "they belong to different dictionaries"
            )
