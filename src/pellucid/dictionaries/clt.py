"""Cross-layer transcoders: features that read one layer and write to every later one.

Source: Ameisen et al. 2025, "Circuit Tracing", section 2. A set of them, one a layer, replaces all
MLPs together: the MLP output of layer m is the sum of what the features of layers 0..m write to it.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.core.types import AnySite, Site
from pellucid.dictionaries.base import Dictionary


@final
class CrossLayerTranscoder(Dictionary):
    """The features of one layer of a cross-layer transcoder.

    W_dec is [F, n, d]: slot j writes to `mlp_out` of the layer j above the one it reads (the
    orientation of circuit-tracer). b_dec belongs to slot 0: each layer's own part adds the bias,
    and with a `W_skip` the linear path from what it reads (as in Gemma Scope 2).

    Raises:
        DictionaryError: a write site that is not `mlp_out` of some layer.
    """

    kind = "clt"
    decoder_dimensions: ClassVar[int] = 3

    @property
    def write_sites(self) -> tuple[AnySite, ...]:
        """`mlp_out` of the layer it reads and of every later one."""
        first = self.write_site
        assert isinstance(first, Site)
        return tuple(Site("mlp_out", first.layer + slot) for slot in range(self.W_dec.shape[1]))

    def decoder(self, slot: int = 0) -> Float[Tensor, "F d_out"]:
        """The decoder matrix of a slot (a view: the whole tensor is not copied)."""
        return self.W_dec[:, slot]

    def encoder_input(self, x: Float[Tensor, "N d_in"]) -> Float[Tensor, "N d_in"]:
        """x itself."""
        return x

    def _check_kind(self) -> None:
        if not isinstance(self.write_site, Site) or self.write_site.kind != "mlp_out":
            raise DictionaryError(
                f"a cross-layer transcoder cannot write to {self.write_site}; its first write site "
                "is mlp_out of the layer it reads"
            )
