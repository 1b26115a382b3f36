"""How strong steering is, in terms that carry over between models, layers and vectors.

rho = strength * |v| / median |h|, h the unedited values at the tokens that are edited; and the
change of cross-entropy on neutral text when every token of it is steered. A vector's own length
means little: norms of concepts differ a hundredfold between layers of one model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pellucid.core.errors import InterventionError
from pellucid.interventions.prompts import as_batch
from pellucid.interventions.run import run
from pellucid.interventions.selection import Prompted
from pellucid.interventions.spec import Intervention
from pellucid.interventions.steering.reading import ROWS_AT_ONCE, Prompts, ids_of, text_tokens
from pellucid.interventions.steering.vector import Steering, SteeringVector
from pellucid.interventions.where import EVERYWHERE
from pellucid.models.model import LanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """How strong an edit is.

    Attributes:
        strength: factor of the vector.
        rho: strength times the vector's length over the median length of what it is added to.
        ce_change: nats a token by which cross-entropy on neutral text rises.
    """

    strength: float
    rho: float
    ce_change: float


@torch.no_grad()
def median_norm(model: LanguageModel, vector: SteeringVector, prompts: Prompts) -> float:
    """Median length of the unedited values at the tokens that a vector would be added to.

    Args:
        model: run unedited.
        vector: its site and where-clause are used.
        prompts: texts or ids.

    Raises:
        InterventionError: there is no prompt, or its where-clause selects nothing of them.
        PromptError: a prompt cannot be read.
        SiteError: the model has no such site.
    """
    found: list[Tensor] = []
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        batch = as_batch(model, prompts[start : start + ROWS_AT_ONCE])
        prompted = Prompted(model, batch, new_tokens=0)
        table = torch.from_numpy(prompted.table(vector.where, range(len(batch))))
        values = model.activations(batch.ids, [vector.site], batch.mask)[vector.site]
        chosen = table.to(model.device).gather(1, batch.positions.clamp_min(0)) & batch.mask
        found.append(values[chosen].float().norm(dim=1).cpu())
    norms = torch.cat(found) if found else torch.empty(0)
    if not len(norms):
        raise InterventionError(
            f"the vector at {vector.site} would edit no token of {len(prompts)} prompts; give "
            "prompts, and a where-clause that selects some of their tokens"
        )
    return float(norms.median())


def rho_of(strength: float, vector: SteeringVector, norm: float) -> float:
    """Relative strength: strength times |v| over the median norm (see `median_norm`)."""
    return strength * vector.norm / norm


def strength_for(rho: float, vector: SteeringVector, norm: float) -> float:
    """The factor that gives a vector the relative strength `rho`.

    Args:
        rho: relative strength wanted.
        vector: the vector.
        norm: `median_norm` at its site.

    Raises:
        InterventionError: rho is not finite.
    """
    if not torch.isfinite(torch.tensor(rho)):
        raise InterventionError(f"rho is {rho}; give a finite relative strength, such as 0.5")
    return rho * norm / vector.norm


def random_like(vector: SteeringVector, seed: int) -> SteeringVector:
    """A vector of the same length in a random direction: the control of every steering result."""
    drawn = torch.randn(len(vector.vector), generator=torch.Generator().manual_seed(seed))
    record = {"seed": seed, "norm_of": vector.method} | {
        key: value for key, value in vector.provenance.items() if key.startswith("model")
    }
    return replace(
        vector, vector=drawn * (vector.norm / drawn.norm()), method="random", provenance=record
    )


@torch.no_grad()
def cross_entropies(
    model: LanguageModel, texts: Prompts, edits: Sequence[Sequence[Intervention]] = ((),)
) -> list[float]:
    """Mean nats a token of some texts under each of several sets of edits, in shared forwards.

    Args:
        model: the model.
        texts: texts or ids; every token but a special first one counts.
        edits: each made for all rows (`rows` None); the empty set is the unedited model.

    Raises:
        InterventionError: there is no text, or an edit cannot be made or selects nothing.
        PromptError: a text cannot be read.
    """
    if not len(texts):
        raise InterventionError("there is no neutral text; give at least one")
    totals, counts = torch.zeros(len(edits), dtype=torch.float64), torch.zeros(len(edits))
    per_text = max(1, ROWS_AT_ONCE // len(edits))
    for start in range(0, len(texts), per_text):
        part = texts[start : start + per_text]
        ids = [ids_of(model, each) for each in part]
        rows = [row for row in ids for _ in edits]
        every = [
            replace(each, rows=tuple(range(number, len(rows), len(edits))))
            for number, group in enumerate(edits)
            for each in group
        ]
        result = run(model, rows, every)
        batch = result.batch
        logp = result.logits[:, :-1].float().log_softmax(-1)
        told = logp.gather(-1, batch.ids[:, 1:, None]).squeeze(-1)
        counted = text_tokens(model, batch)[:, 1:] & batch.mask[:, :-1]
        sums = (-told).masked_fill(~counted, 0.0).sum(1).double().cpu()
        totals += sums.view(len(part), len(edits)).sum(0)
        counts += counted.sum(1).cpu().view(len(part), len(edits)).sum(0)
    return (totals / counts).tolist()


def strengths_of(
    model: LanguageModel,
    vector: SteeringVector,
    strengths: Sequence[float],
    *,
    prompts: Prompts,
    neutral: Prompts,
) -> list[Strength]:
    """Relative strength and cost on neutral text of several strengths.

    Args:
        model: the model.
        vector: the vector.
        strengths: factors.
        prompts: whose values rho is relative to.
        neutral: text whose cross-entropy is measured, steered at every token.

    Raises:
        InterventionError: no prompt, no text, or a strength that is not finite.
        PromptError: a text cannot be read.
    """
    norm = median_norm(model, vector, prompts)
    changes = ce_changes(model, vector.at(EVERYWHERE), strengths, neutral)
    return [
        Strength(strength=each, rho=rho_of(each, vector, norm), ce_change=change)
        for each, change in zip(strengths, changes, strict=True)
    ]


def ce_changes(
    model: LanguageModel, steering: Steering, strengths: Sequence[float], neutral: Prompts
) -> list[float]:
    """By how many nats a token cross-entropy on neutral text rises, for each strength.

    Args:
        model: the model.
        steering: what steers; it should edit every token.
        strengths: factors.
        neutral: texts or ids.

    Raises:
        InterventionError: no text, or a strength that is not finite.
        PromptError: a text cannot be read.
    """
    edits = [(), *(steering.interventions(each) for each in strengths)]
    plain, *steered = cross_entropies(model, neutral, edits)
    return [each - plain for each in steered]
