"""What pellucid knows about an architecture: one frozen description a family, nothing else.

A description is the only translation from sites to module paths, norms and freeze points.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pellucid.core.errors import SiteError
from pellucid.core.types import Site
from pellucid.models.attention_layouts import AttentionLayout
from pellucid.models.mlp import GATED, MlpLayout
from pellucid.models.taps import TapPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class NormForm:
    """How a family's norm modules compute.

    Attributes:
        centred: subtracts the mean first (LayerNorm); otherwise RMSNorm.
        gain_offset: added to the stored weight (Gemma stores the gain minus one).
        eps: name of the attribute that holds the epsilon.
    """

    centred: bool = False
    gain_offset: float = 0.0
    eps: str = "variance_epsilon"


@dataclass(frozen=True, slots=True)
class Rotary:
    """The module that gives the angles of rotary position embeddings.

    Attributes:
        path: of the module; called with a tensor (for its dtype and device) and position ids.
        by_layer_type: it also takes the layer's type (sliding or full attention).
    """

    path: str
    by_layer_type: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchSpec:
    """A family of decoders.

    Attributes:
        family: name in messages and manifests.
        model_type: the `model_type` of its Hugging Face configuration.
        when: configuration values that tell variants of one `model_type` apart.
        embedding: path of the token embedding, whose output is already scaled where the family
            scales it.
        positions: path of the learned position embedding, added to the tokens' embedding.
        blocks: path of the list of blocks.
        final_norm: path of the norm before the unembedding.
        unembedding: path of the projection to the vocabulary.
        logit_softcap: name of the configuration value c in `logits = c tanh(x / c)`.
        attention, mlp: paths inside a block.
        attn_norm, mlp_norm: norms before attention and MLP, None where they read the residual.
        attn_post_norm, mlp_post_norm: norms on what attention and MLP add to the residual.
        norm: how all of these norms compute.
        layout: where the attention keeps its projections.
        mlp_layout: where the MLP keeps its projections.
        rotary: what rotates queries and keys, None where positions are embedded otherwise.
        score_softcap: name of the configuration value c in `c tanh(score / c)`, taken before the
            softmax.
        parallel: attention and MLP both read the block's input and are added together.
    """

    family: str
    model_type: str
    when: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    embedding: str
    positions: str | None = None
    blocks: str
    final_norm: str
    unembedding: str
    logit_softcap: str | None = None
    attention: str
    mlp: str
    attn_norm: str | None
    attn_post_norm: str | None = None
    mlp_norm: str | None
    mlp_post_norm: str | None = None
    norm: NormForm
    layout: AttentionLayout
    mlp_layout: MlpLayout = GATED
    rotary: Rotary | None = None
    score_softcap: str | None = None
    parallel: bool = False

    def block_path(self, layer: int, inside: str | None = None) -> str:
        """The path of a block, or of a module inside it."""
        block = f"{self.blocks}.{layer}"
        return block if inside is None else f"{block}.{inside}"

    def point(self, site: Site, n_layers: int) -> TapPoint:
        """Where a site is in a model of `n_layers` blocks.

        Raises:
            SiteError: the model has no such layer, or the family no such site.
        """
        layer = site.layer
        if layer >= n_layers:
            raise SiteError(
                f"site {site} names layer {layer} of a model with {n_layers} layers; "
                f"use 0 to {n_layers - 1}"
            )
        match site.kind:
            case "embed":
                return TapPoint(self.block_path(0), "input")
            case "resid_pre":
                return TapPoint(self.block_path(layer), "input")
            case "resid_post":
                return TapPoint(self.block_path(layer), "output")
            case "attn_out":
                inside = self.attn_post_norm or self.attention
                return TapPoint(self.block_path(layer, inside), "output")
            case "mlp_in":
                return TapPoint(self.block_path(layer, self.mlp), "input")
            case "mlp_out":
                inside = self.mlp_post_norm or self.mlp
                return TapPoint(self.block_path(layer, inside), "output")
            case "resid_mid":
                return self._resid_mid(site)

    def _resid_mid(self, site: Site) -> TapPoint:
        if self.parallel:
            raise SiteError(
                f"site {site} does not exist in {self.family}, whose attention and MLP run in "
                "parallel; use resid_pre or resid_post"
            )
        # The residual branch holds the very tensor that the norm (or the MLP) is given.
        return TapPoint(
            self.block_path(site.layer, self.mlp_norm or self.mlp), "input", in_place=True
        )
