"""Continuations under steering, against one prompt at a time with a bare tap."""

import pytest
import torch

from pellucid.core.errors import InterventionError
from pellucid.core.types import Site
from pellucid.interventions.spec import Gate, Intervention
from pellucid.interventions.steering.continuations import continuation_log_probabilities
from pellucid.interventions.steering.vector import SteeringVector
from pellucid.interventions.where import EVERYWHERE, Where, at, generated, window
from pellucid.models.model import LanguageModel

SITE = Site("resid_post", 1)
PROMPTS = ["w5 w6 w7", "w8 w9"]
TAILS = ["w10 w11", "w12", "w13 w14 w15"]
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(1)) * 3


def steering(where: Where) -> SteeringVector:
    return SteeringVector(site=SITE, vector=VECTOR, method="by hand", where=where)


def by_hand(
    model: LanguageModel, prompt: str, tail: str, first: int | None, last: int | None
) -> float:
    """Mean log-probability a token when positions `first` to `last` get the vector."""
    head, end = model.encode(prompt), model.encode(tail)[1:]
    ids = torch.cat([head, end])[None]

    def add(value, _):
        if first is None:
            return None
        shift = torch.zeros_like(value)
        shift[:, first:last] = VECTOR
        return value + shift

    with model.tapped([(SITE, add)]):
        logp = model.logits(ids)[0].log_softmax(-1)
    places = range(len(head) - 1, len(head) + len(end) - 1)
    return float(torch.stack([logp[p, ids[0, p + 1]] for p in places]).mean())


@pytest.mark.parametrize(
    ("where", "edited"),
    [
        (EVERYWHERE, lambda n: (1, None)),
        (window(-1), lambda n: (n - 1, None)),
        (at(-1), lambda n: (n - 1, n)),
        (at(1), lambda n: (1, 2)),
        (Where(prompt=True), lambda n: (1, n)),
    ],
)
def test_where_clauses_take_the_continuation_for_generated(
    tiny: LanguageModel, where: Where, edited
) -> None:
    found = continuation_log_probabilities(
        tiny, PROMPTS, TAILS, [(), steering(where).interventions(1.0)]
    )
    for p, prompt in enumerate(PROMPTS):
        bounds = edited(len(tiny.encode(prompt)))
        for c, tail in enumerate(TAILS):
            assert found[0, p, c] == pytest.approx(
                by_hand(tiny, prompt, tail, None, None), abs=1e-4
            )
            assert found[1, p, c] == pytest.approx(by_hand(tiny, prompt, tail, *bounds), abs=1e-4)


def test_a_gate_counts_the_prompt_alone(tiny: LanguageModel) -> None:
    """The gate opens on the first prompt's mean and not on the second's, whatever comes after."""
    site = Site("resid_post", 0)
    means = [tiny.activations(tiny.encode(p)[None], [site])[site][0, 1:].mean(0) for p in PROMPTS]
    direction = means[0] - means[1]
    threshold = float(sum(torch.cosine_similarity(m, direction, dim=0) for m in means) / 2)
    gate = Gate(
        site=site,
        vector=direction,
        threshold=threshold,
        measure="cosine",
        reduce="mean",
        over=Where(prompt=True),
    )
    edit = Intervention(SITE, steering(window(-1)).interventions()[0].op, window(-1), gate=gate)
    found = continuation_log_probabilities(tiny, PROMPTS, TAILS, [[edit]])
    for p, prompt in enumerate(PROMPTS):
        first = len(tiny.encode(prompt)) - 1 if p == 0 else None
        for c, tail in enumerate(TAILS):
            assert found[0, p, c] == pytest.approx(
                by_hand(tiny, prompt, tail, first, None), abs=1e-4
            )


def test_nothing_to_measure(tiny: LanguageModel) -> None:
    for prompts, tails in (([], TAILS), (PROMPTS, [])):
        with pytest.raises(InterventionError, match="at least one of both"):
            continuation_log_probabilities(tiny, prompts, tails, [()])
    with pytest.raises(InterventionError, match="selects no token"):
        edits = steering(generated(2)).interventions()
        continuation_log_probabilities(tiny, PROMPTS, ["w10 w11 w12 w13", "w9"], [edits])
