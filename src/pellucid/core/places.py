"""Places that can be edited: sites, attention heads and dictionary features, and their names.

One grammar, several spellings: `mlp_in@5` and `blocks.5.mlp_in` are the same site;
`blocks.5.hook_resid_post` and the other names of TransformerLens, and paths of modules, are read
too. Every place prints its one canonical name.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from pellucid.core.errors import SiteError
from pellucid.core.types import SITE_KINDS, AnySite, ModuleSite, Side, Site, parse_site

HeadKind = Literal["q", "k", "v", "z"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
_FEATURE_WORDS = ("feature", "transcoder", "sae", "clt")

_AT = re.compile(r"(?P<name>[a-z_]+)@(?P<layer>\d+)(?:\[(?P<index>\d+)\])?")
_BLOCK = re.compile(
    r"blocks\.(?P<layer>\d+)\.(?:attn\.)?(?P<hook>hook_)?(?P<name>[a-z_]+)(?:\[(?P<index>\d+)\])?"
)


@dataclass(frozen=True, slots=True, order=True)
class HeadSite:
    """Queries, keys, values or outputs of one attention head, or of all of a layer: `z@5[3]`.

    `q`, `k` and `v` are what the projections give, before any norm and rotation; `z` is each
    head's weighted average of values, before the output projection.
    """

    kind: HeadKind
    layer: int
    head: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}@{self.layer}" + ("" if self.head is None else f"[{self.head}]")


@dataclass(frozen=True, slots=True, order=True)
class FeatureSite:
    """A feature of the dictionary that reads at a layer: `feature@5[123]`."""

    layer: int
    feature: int

    def __str__(self) -> str:
        return f"feature@{self.layer}[{self.feature}]"


Place = AnySite | HeadSite | FeatureSite


def parse_place(text: str) -> Place:
    """Read the name of a place.

    Args:
        text: `resid_post@5`, `blocks.5.resid_post`, `blocks.5.hook_resid_post`,
            `blocks.5.attn.z[3]`, `blocks.5.transcoder[123]`, `embed`, or the path of a module
            with `:input` or `:output` (the default).

    Raises:
        SiteError: the text is none of these.
    """
    if text.rpartition(":")[2] in get_args(Side):
        return parse_site(text)
    match = _AT.fullmatch(text) or _BLOCK.fullmatch(text)
    if match is None:
        if "." in text and "@" not in text and not text.startswith("blocks."):
            return ModuleSite(text, "output")
        if text in SITE_KINDS:
            return parse_site(text)
        raise _unknown(text)
    name, layer = match["name"], int(match["layer"])
    index = None if match["index"] is None else int(match["index"])
    if name in _FEATURE_WORDS:
        if index is None:
            raise SiteError(f"site {text!r} names no feature; write one, as in {name}@{layer}[123]")
        return FeatureSite(layer, index)
    if name in HEAD_KINDS:
        return HeadSite(name, layer, index)
    if name not in SITE_KINDS or name == "embed" or index is not None:
        raise _unknown(text)
    if match.groupdict().get("hook") and name == "mlp_in":
        raise SiteError(
            f"site {text!r}: in TransformerLens this is the residual before the norm; write "
            f"resid_mid@{layer} for that, or mlp_in@{layer} for what the MLP reads"
        )
    return Site(name, layer)


def _unknown(text: str) -> SiteError:
    return SiteError(
        f"unknown site {text!r}; write a site as in 'resid_post@5' or 'blocks.5.resid_post' "
        f"({', '.join(SITE_KINDS)}), a head as in 'blocks.5.attn.z[3]' "
        f"({', '.join(HEAD_KINDS)}), a feature as in 'blocks.5.transcoder[123]', or the path of "
        "a module as in 'model.layers.5.mlp:output'"
    )
