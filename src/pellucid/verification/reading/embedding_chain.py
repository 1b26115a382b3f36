"""How the hidden state moves from layer to layer while a step is written, as scores of the step.

Each is turned so that a higher score means a step that is more likely wrong by its paper. h_l is
the residual stream before layer l, h_L after the last. Suffixes: S places (L + 1), T tokens, D
width.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import DataError

EMBEDDING_CHAIN: Mapping[str, str] = {
    "coe_r": "-(mean M - mean A), of the token-averaged state",
    "coe_c": "-|mean of M exp(iA)|, of the token-averaged state",
    "kinetics_momentum": "-mean of M squared / 2, mean over tokens",
    "kinetics_curvature": "mean angle between a layer's displacement and the next, over tokens",
    "kinetics_energy": "kinetics_momentum + kinetics_curvature",
}
"""Score -> its definition, with M_l = |h_(l+1) - h_l| / |h_L - h_0| and A_l likewise of angles."""


def embedding_chain_scores(hidden: Float[Tensor, "S T D"]) -> dict[str, float]:
    """Chain-of-Embedding, and the two quantities that CoT-Kinetics is made of.

    CoE-R and CoE-C are those of Wang et al. 2024 (arXiv 2410.13640), as in its authors' code. Of
    CoT-Kinetics (Bi et al. 2025, 2505.13408) only descriptions could be had, not the equation:
    "semantic momentum and curvature energy of hidden states" across layers. So the momentum and the
    curvature are given on their own too, and a method may learn their weights; how the paper
    scales and adds them, and whether an entropy takes part, is not verified.

    A displacement or an angle of nothing (a state that does not move) counts as 0.

    Args:
        hidden: the residual stream at every place in depth, at the tokens of the step.

    Raises:
        DataError: fewer than two layers, or no token.
    """
    if hidden.ndim != 3 or hidden.shape[0] < 3 or not hidden.shape[1]:
        raise DataError(
            f"hidden states have shape {tuple(hidden.shape)}; give [layers + 1, tokens, width] of "
            "at least two layers and one token"
        )
    states_STD = hidden.detach().double()
    mean_SD = states_STD.mean(1)
    M, A = _moves(mean_SD[:, None])
    momentum, curvature = _momentum(states_STD), _curvature(states_STD)
    around = torch.complex((M * A.cos()).mean(), (M * A.sin()).mean())
    return {
        "coe_r": float(A.mean() - M.mean()),
        "coe_c": -float(around.abs()),
        "kinetics_momentum": -momentum,
        "kinetics_curvature": curvature,
        "kinetics_energy": curvature - momentum,
    }


def _moves(states_STD: Tensor) -> tuple[Tensor, Tensor]:
    """Relative length and relative angle of every layer's step [S - 1, T]."""
    length = torch.linalg.vector_norm(states_STD[1:] - states_STD[:-1], dim=-1)
    whole = torch.linalg.vector_norm(states_STD[-1] - states_STD[0], dim=-1)
    angle, turned = (
        _angle(states_STD[1:], states_STD[:-1]),
        _angle(states_STD[-1], states_STD[0]),
    )
    return _ratio(length, whole), _ratio(angle, turned)


def _momentum(states_STD: Tensor) -> float:
    return float((_moves(states_STD)[0] ** 2 / 2).mean())


def _curvature(states_STD: Tensor) -> float:
    moved = states_STD[1:] - states_STD[:-1]
    return float(_angle(moved[1:], moved[:-1]).mean())


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """In radians; 0 where one of the two is 0."""
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosine = _ratio((a * b).sum(-1), norms).clamp(-1, 1)
    return torch.where(norms > 0, cosine.acos(), torch.zeros_like(norms))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.where(below > 0, torch.ones_like(below)), 0.0)
