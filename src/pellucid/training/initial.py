"""What training starts from."""

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.distributed.team import ALONE, Teams
from pellucid.training.activations import RULES
from pellucid.training.config import TrainConfig
from pellucid.training.encoding import batch_cut
from pellucid.training.parameters import Parameters


def initial_parameters(
    config: TrainConfig,
    x: Float[Tensor, "N d_in"],
    y: Float[Tensor, "N d_out"],
    generator: torch.Generator,
    *,
    slots: int = 1,
    teams: Teams = ALONE,
) -> Parameters:
    """Parameters to start from, given a first batch at unit scale.

    Encoder rows are random unit vectors. The decoder is 0 for a transcoder and a copy of the
    encoder for an SAE; b_dec is the mean output and b_enc centres the input (EleutherAI sparsify).
    The skip path starts at 0. Decoder rows that are to keep norm 1 start as random unit vectors.
    Then the activation has its say (`ActivationRule.start`).

    Args:
        config: the settings.
        x: what is read.
        y: what is written to the first slot.
        generator: a CPU generator.
        slots: how many sites are written, all as wide as y.
        teams: over which processes tokens and features are spread.
    """
    num_features = config.features(y.shape[1])
    mine = teams.features.share(num_features)

    def unit_rows(width: int) -> Tensor:
        rows = torch.randn(num_features, width, generator=generator)
        return torch.nn.functional.normalize(rows)[mine].to(x.device)

    W_enc = unit_rows(x.shape[1])
    b_dec = teams.tokens.sum(y.mean(dim=0)) / teams.tokens.size
    centre = teams.tokens.sum(x.mean(dim=0)) / teams.tokens.size
    if config.kind == "sae":
        W_dec, b_enc = W_enc.clone(), x.new_zeros(len(W_enc))
    else:
        width = slots * y.shape[1]
        unit = config.decoder_norm == "unit"
        W_dec = unit_rows(width) if unit else x.new_zeros(len(W_enc), width)
        b_enc = -(W_enc @ centre)
    has_skip = config.kind == "skip-transcoder"
    W_skip = x.new_zeros(y.shape[1], x.shape[1]) if has_skip else None
    parameters = Parameters(W_enc, b_enc, W_dec, b_dec, W_skip)
    inputs = x - b_dec if config.kind == "sae" else x
    RULES[config.activation].start(parameters, lambda: batch_cut(config, parameters, inputs, teams))
    return parameters
