"""The values that flow through every layer: sites and sparse codes."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.core.errors import SiteError

SiteKind = Literal["embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_in", "mlp_out"]
SITE_KINDS: tuple[SiteKind, ...] = get_args(SiteKind)
Side = Literal["input", "output"]


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """A named place in a decoder's residual computation, such as `mlp_in@12`.

    `mlp_in` is read after the norm and its gain; `mlp_out` and `attn_out` are what is added to
    the residual (after a post-norm where the family has one). `embed` has no layer (-1).
    """

    kind: SiteKind
    layer: int = -1

    def __post_init__(self) -> None:
        if self.kind not in SITE_KINDS:
            raise SiteError(f"unknown site kind {self.kind!r}; use one of {', '.join(SITE_KINDS)}")
        if (self.layer < 0) != (self.kind == "embed"):
            raise SiteError(
                f"site {self.kind!r} got layer {self.layer}; every site but 'embed' needs a layer, "
                "written like 'mlp_in@12'"
            )

    def __str__(self) -> str:
        return self.kind if self.kind == "embed" else f"{self.kind}@{self.layer}"


@dataclass(frozen=True, slots=True, order=True)
class ModuleSite:
    """The input or the output of a module named by its path: `encoder.layer.0.output:input`.

    Works on any transformer, encoders included; only training needs nothing more.
    """

    path: str
    side: Side

    def __str__(self) -> str:
        return f"{self.path}:{self.side}"


AnySite = Site | ModuleSite


def parse_site(text: str) -> AnySite:
    """Read the text form of a site: `embed`, `mlp_in@12`, or `module.path:input|output`.

    Raises:
        SiteError: the text is none of these.
    """
    path, _, side = text.rpartition(":")
    if path and side in get_args(Side):
        return ModuleSite(path, side)  # type: ignore[arg-type]
    kind, _, layer = text.partition("@")
    if not layer.isdigit() and layer != "":
        raise SiteError(f"site {text!r} has layer {layer!r}; write a number, as in 'mlp_in@12'")
    return Site(kind, int(layer) if layer else -1)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class SparseCodes:
    """Feature activations of N tokens, at most K stored a token; padding has value 0.

    A stored (index, value) pair with a non-zero value is an active feature. Indices of padding
    are valid (0 <= index < num_features) and may repeat.
    """

    values: Float[Tensor, "N K"]
    indices: Int[Tensor, "N K"]
    num_features: int

    def dense(self) -> Float[Tensor, "N F"]:
        """The same codes as a dense matrix (for tests and small inputs)."""
        shape = (self.values.shape[0], self.num_features)
        zeros = torch.zeros(shape, dtype=self.values.dtype, device=self.values.device)
        return zeros.scatter_add(1, self.indices.long(), self.values)

    def l0(self) -> Float[Tensor, " N"]:
        """How many features are active at each token."""
        return (self.values != 0).sum(dim=1).to(torch.float32)
