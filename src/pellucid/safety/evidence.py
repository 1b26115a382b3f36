"""Which tokens the behaviour hangs on: by leaving each one out, and by where features fire."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from pellucid.core.places import FeatureSite
from pellucid.core.proportions import wilson
from pellucid.dictionaries.dictionary_set import DictionarySet
from pellucid.interventions.prompts import as_batch
from pellucid.models.model import LanguageModel
from pellucid.safety.candidates import leans
from pellucid.safety.readout import Readout

PROMPTS = 48
PLACES = 48
"""At most so many tokens of a prompt are left out, spread evenly."""
_BATCH = 256
Prompts = Sequence[Sequence[int]]


def suspects(
    model: LanguageModel, prompts: Prompts, readout: Readout, *, most: int = 8
) -> list[dict[str, Any]]:
    """Tokens whose absence makes the model refuse, most telling first.

    Every token but the first and the last is left out by itself. The rates of the other tokens are
    the control: leaving out any token at all changes a prompt.

    Args:
        model: the model.
        prompts: that it answers and ought to refuse.
        readout: of the lean to refusing.
        most: how many to give.

    Returns:
        Records with `token`, its `id`, `restored` (share of its occurrences without which the model
        leans to refusing, with a 95% interval `low`, `high`) and `occurrences`.
    """
    shorter, without = [], []
    for prompt in prompts[:PROMPTS]:
        inner = range(1, len(prompt) - 1)
        step = max(1, -(-len(inner) // PLACES))
        for place in inner[::step]:
            shorter.append([*prompt[:place], *prompt[place + 1 :]])
            without.append(prompt[place])
    restored: dict[int, list[bool]] = defaultdict(list)
    for start in range(0, len(shorter), _BATCH):
        lean = leans(model, shorter[start : start + _BATCH], readout)
        for token, value in zip(without[start:], lean.tolist(), strict=False):
            restored[token].append(value > 0)
    found: list[dict[str, Any]] = [
        {"token": model.token_texts([token])[0], "id": token, "occurrences": len(each)}
        | {"restored": sum(each) / len(each), **_ends(sum(each), len(each))}
        for token, each in restored.items()
    ]
    return sorted(found, key=lambda each: -each["low"])[:most]


@torch.no_grad()
def firing_tokens(
    model: LanguageModel,
    dictionaries: DictionarySet,
    prompts: Prompts,
    features: Sequence[FeatureSite],
    *,
    most: int = 3,
) -> dict[str, list[dict[str, Any]]]:
    """The tokens on which features fire, with each one's share of the whole activation.

    Args:
        model: the model.
        dictionaries: of the features.
        prompts: token ids.
        features: which.
        most: tokens a feature.
    """
    batch = as_batch(model, [list(prompt) for prompt in prompts[:PROMPTS]], left=False)
    sites = {each.layer: dictionaries[each.layer].read_site for each in features}
    values = model.activations(batch.ids, list(dict.fromkeys(sites.values())), batch.mask)
    real = batch.mask & (batch.positions > 0)
    found = {}
    for feature in features:
        rows = values[sites[feature.layer]][real]
        numbers = torch.arange(len(rows), device=rows.device)
        index = torch.full_like(numbers, feature.feature)
        activation = dictionaries[feature.layer].activations_of(rows, numbers, index).float()
        sums = torch.zeros(model.vocab_size, device=rows.device)
        sums.index_add_(0, batch.ids[real], activation)
        top = sums.topk(most)
        total = max(float(sums.sum()), 1e-12)
        found[str(feature)] = [
            {"token": model.token_texts([int(token)])[0], "share": float(value) / total}
            for value, token in zip(*top, strict=True)
            if value > 0
        ]
    return found


def _ends(successes: int, trials: int) -> dict[str, float]:
    share = wilson(successes, trials)
    return {"low": share.low, "high": share.high}
