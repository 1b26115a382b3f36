"""What edits do to the next token, beside random edits of the same size at the same tokens.

Shape legend: B prompts, S positions, d width of the edited value, n random draws.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.places import FeatureSite
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.prompts import Prompts, as_batch
from pellucid.interventions.receipts import Receipt
from pellucid.interventions.run import edit
from pellucid.interventions.spec import Intervention
from pellucid.interventions.targets import dictionary_of, view_of
from pellucid.models.model import LanguageModel
from pellucid.models.taps import TapCall, TapFunction, TapPoint

Ranked = tuple[tuple[int, float], ...]
"""Token ids with their probabilities, the most probable first."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEffect:
    """The change of one prompt's next-token distribution.

    Attributes:
        kl: KL(unedited || edited), in nats.
        before, after: the most probable tokens.
        control: the same KL for each random draw: at every edited place and token a random
            direction is added whose norm is that of the edit's change there.
    """

    kl: float
    before: Ranked
    after: Ranked
    control: tuple[float, ...]

    def to_json(self, model: LanguageModel) -> dict[str, Any]:
        """The figures, with tokens as text.

        Args:
            model: whose tokens they are.
        """
        draws = torch.tensor(self.control, dtype=torch.float64)
        low, high = (float(draws.quantile(share)) for share in (0.025, 0.975))
        return {
            "kl": self.kl,
            "before": _named(model, self.before),
            "after": _named(model, self.after),
            "control": {
                "kl": float(draws.mean()),
                "low": low,
                "high": high,
                "draws": len(draws),
                "at_least_as_large": float((draws >= self.kl).double().mean()),
            },
        }


@torch.no_grad()
def effects(
    model: LanguageModel,
    prompts: Prompts,
    interventions: Sequence[Intervention],
    *,
    dictionaries: DictionarySet | None = None,
    draws: int = 16,
    top: int = 5,
    seed: int = 0,
) -> tuple[list[PromptEffect], Receipt]:
    """Run prompts unedited, edited, and under random edits of the same norms.

    Args:
        model: the model.
        prompts: texts, ids row by row, or a tensor of ids.
        interventions: the edits.
        dictionaries: of the features they name.
        draws: how many random edits of each prompt.
        top: how many tokens are named.
        seed: of the random directions.

    Returns:
        One effect a prompt, and the receipt of the edited run.

    Raises:
        SiteError: a place that the model does not have.
        InterventionError: an intervention is malformed, contradicts another or edited nothing.
        PromptError: a prompt that the model cannot be asked.
    """
    batch = as_batch(model, prompts, left=False)
    ends = batch.positions.argmax(dim=1)

    def last(logits: Tensor) -> Tensor:
        return logits[torch.arange(len(ends)), ends].float().log_softmax(-1)

    points = list(dict.fromkeys(_points(model, interventions, dictionaries)))
    before: dict[TapPoint, Tensor] = {}
    after: dict[TapPoint, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(model.tapped([(point, _keep(before, point)) for point in points]))
        receipt = stack.enter_context(
            edit(model, interventions, dictionaries=dictionaries, batch=batch, new_tokens=0)
        )
        stack.enter_context(model.tapped([(point, _keep(after, point)) for point in points]))
        edited = last(model.logits(batch.ids, batch.mask))
    plain = last(model.logits(batch.ids, batch.mask))
    changes = {point: (after[point] - before[point]) * batch.mask[..., None] for point in points}
    generator = torch.Generator().manual_seed(seed)
    controls = []
    for _ in range(draws):
        taps = [(point, _random(change, generator)) for point, change in changes.items()]
        with model.tapped(taps):
            controls.append(_kl(plain, last(model.logits(batch.ids, batch.mask))))
    control_nB = torch.stack(controls) if controls else plain.new_zeros(0, len(plain))
    found = [
        PromptEffect(
            kl=float(kl),
            before=_ranked(plain[row], top),
            after=_ranked(edited[row], top),
            control=tuple(control_nB[:, row].tolist()),
        )
        for row, kl in enumerate(_kl(plain, edited))
    ]
    return found, receipt


def _points(
    model: LanguageModel,
    interventions: Sequence[Intervention],
    dictionaries: DictionarySet | None,
) -> list[TapPoint]:
    """Every tensor that the interventions change."""
    points = []
    for each in interventions:
        if isinstance(each.site, FeatureSite):
            dictionary = dictionary_of(each.site, dictionaries)
            points += [model.point(site) for site in dictionary.write_sites]
        else:
            points.append(view_of(model, each.site).point)
    return points


def _keep(values: dict[TapPoint, Tensor], point: TapPoint) -> TapFunction:
    def keep(value: Tensor, _: TapCall) -> None:
        values[point] = value

    return keep


def _random(change: Float[Tensor, "B S d"], generator: torch.Generator) -> TapFunction:
    """Add to each prompt a random direction, at every token as long as a change was there."""
    noise = torch.randn(len(change), 1, change.shape[-1], generator=generator).to(change)
    noise = noise * (change != 0).any(dim=1, keepdim=True)  # heads have columns of their own
    unit = noise / noise.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    added = unit * change.norm(dim=-1, keepdim=True)
    return lambda value, _: value + added


def _kl(plain: Float[Tensor, "B V"], other: Float[Tensor, "B V"]) -> Float[Tensor, " B"]:
    """KL(plain || other) of log-probabilities, in nats."""
    return (plain.exp() * (plain - other)).sum(-1).clamp_min(0)


def _ranked(log_probabilities: Float[Tensor, " V"], top: int) -> Ranked:
    values, ids = log_probabilities.exp().topk(min(top, len(log_probabilities)))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))


def _named(model: LanguageModel, ranked: Ranked) -> list[dict[str, Any]]:
    texts = model.token_texts([token for token, _ in ranked])
    return [
        {"token": text, "id": token, "probability": probability}
        for text, (token, probability) in zip(texts, ranked, strict=True)
    ]
