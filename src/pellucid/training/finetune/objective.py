"""What fine-tuning lowers, as sums over the tokens of one part of a batch.

    KL      sum over positions of KL(original || replaced), all MLPs replaced
    local   sum over tokens of |MLP output - dictionary output|^2, by layer

The gradient of the KL term goes through the whole replaced model, that of the local term into its
own layer alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.types import AnySite, SparseCodes
from pellucid.evaluation.agreement import log_probabilities
from pellucid.harvest.rows import RowBatch
from pellucid.models.taps import TapCall, TapFunction
from pellucid.replacement.model import ReplacementModel
from pellucid.replacement.outputs import layer_outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """One run of the original model.

    Attributes:
        log_probabilities: of every next token.
        values: what dictionaries read and should write, at the text's tokens alone.
    """

    log_probabilities: Float[Tensor, "B S V"]
    values: dict[AnySite, Float[Tensor, "N d"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Sums over one part of a batch.

    Attributes:
        kl: in nats; None where it is not asked for.
        errors: squared error by layer.
        codes: active features by layer, on the original model's activations.
    """

    kl: Float[Tensor, ""] | None
    errors: dict[int, Float[Tensor, ""]]
    codes: dict[int, SparseCodes]


@torch.no_grad()
def original_run(replacement: ReplacementModel, batch: RowBatch) -> Original:
    """Run the original model on a part of a batch, which lies on its device."""
    model, dictionaries = replacement.model, replacement.dictionaries
    values: dict[AnySite, Tensor] = {}

    def keep(site: AnySite) -> tuple[AnySite, TapFunction]:
        def tap(value: Tensor, _call: TapCall) -> None:
            values[site] = value[batch.text].float()

        return site, tap

    sites = {site for each in dictionaries for site in (each.read_site, each.write_site)}
    with model.tapped([keep(site) for site in sorted(sites, key=str)]):
        logits = model.logits(batch.ids, batch.mask)
    return Original(log_probabilities=log_probabilities(logits), values=values)


def terms(
    replacement: ReplacementModel, batch: RowBatch, original: Original, *, with_kl: bool
) -> Terms:
    """The sums of a part, given the original model's run of it."""
    dictionaries = replacement.dictionaries
    outputs = layer_outputs(dictionaries, original.values)
    errors = {
        layer: (original.values[dictionaries[layer].write_site] - output.written).square().sum()
        for layer, output in outputs.items()
    }
    kl = None
    if with_kl:
        logits = replacement.tracked_logits(batch.ids, batch.mask)
        kl = divergence(original.log_probabilities, log_probabilities(logits), batch.text)
    return Terms(kl=kl, errors=errors, codes={n: output.codes for n, output in outputs.items()})


def divergence(
    original: Float[Tensor, "B S V"], replaced: Float[Tensor, "B S V"], text: Bool[Tensor, "B S"]
) -> Float[Tensor, ""]:
    """KL(original || replaced), summed over the positions whose next token is text."""
    each = (original.exp() * (original - replaced)).sum(dim=-1)
    return torch.where(text[:, 1:], each[:, :-1], 0.0).sum()


def scored(text: Bool[Tensor, "B S"]) -> int:
    """How many positions `divergence` sums over."""
    return int(text[:, 1:].sum())
