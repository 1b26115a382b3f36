"""Sparse autoencoders: a site reconstructed from its own sparse codes."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DictionaryError
from pellucid.dictionaries.base import Dictionary


@final
class SAE(Dictionary):
    """A dictionary that reads and writes one site and encodes x - b_dec.

    Raises:
        DictionaryError: input and output widths or sites differ, or a skip path is given.
    """

    kind = "sae"

    def encoder_input(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N d"]:
        """x less the decoder's bias."""
        return x - self.b_dec

    def _check_kind(self) -> None:
        if self.d_in != self.d_out or self.read_site != self.write_site:
            raise DictionaryError(
                f"an SAE cannot read {self.read_site} (width {self.d_in}) and write "
                f"{self.write_site} (width {self.d_out}); use a transcoder between different sites"
            )
        if self.W_skip is not None:
            raise DictionaryError("an SAE got a W_skip; only transcoders have a skip path")
