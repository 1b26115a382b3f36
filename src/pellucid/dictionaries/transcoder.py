"""Transcoders: one site predicted from sparse codes of another (Dunefsky et al. 2024)."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from pellucid.dictionaries.base import Dictionary


@final
class Transcoder(Dictionary):
    """A dictionary from one site to another, such as from an MLP's input to its output.

    It encodes x itself: b_dec lives at the site it writes. With a `W_skip` it is a skip transcoder
    (Paulo et al. 2025).
    """

    kind = "transcoder"

    def encoder_input(self, x: Float[Tensor, "N d_in"]) -> Float[Tensor, "N d_in"]:
        """x itself."""
        return x

    def _check_kind(self) -> None:
        """Any two sites and widths will do."""
