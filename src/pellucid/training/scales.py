"""Input and output scales: training sees activations of unit size, saved dictionaries raw ones.

A hyper-parameter (learning rate, initial norm, epsilon) then means the same at every layer and
model. Both scales are single numbers, so they fold into the weights exactly: a dictionary of
s_in * x -> s_out * y is one of x -> y after W_enc * s_in, W_dec / s_out, b_dec / s_out and
W_skip * s_in / s_out.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DataError
from pellucid.distributed.team import ALONE, Team


@dataclass(frozen=True, slots=True)
class Scales:
    """What inputs and outputs are multiplied by before training sees them."""

    read: float
    write: float


def measure_scale(x: Float[Tensor, "N d"], site: str, tokens: Team = ALONE.tokens) -> float:
    """The factor that brings the mean squared norm of the rows of x to their width.

    Args:
        x: activations, here of this process's share of the batch.
        site: where they come from, for messages.
        tokens: the processes that have the other shares.

    Raises:
        DataError: x is zero throughout, or holds a value that is not finite.
    """
    mean_square = float(tokens.sum(x.double().square().mean())) / tokens.size
    if not 0 < mean_square < float("inf"):
        raise DataError(
            f"the activations at {site} have mean square {mean_square}; check the site, and that "
            "the model runs in a dtype that does not overflow"
        )
    return mean_square**-0.5
