"""What a step's graph explains, by name.

after     what follows the step, at its last token (the published choice)
before    what the step begins with, at the token before it
answer    the first token that the step did not copy, where it was predicted
contrast  the same, less the likeliest other token
weakest   the token of the step that the model was least sure of, where it was predicted
"""

from typing import Literal, NamedTuple, get_args

from pellucid.attribution.explain import Logit, LogitDifference, Target, TopLogits
from pellucid.replacement.freeze import FrozenRun
from pellucid.verification.steps.place import StepPlace

TargetName = Literal["after", "before", "answer", "contrast", "weakest"]
TARGETS: tuple[TargetName, ...] = get_args(TargetName)


class Explanandum(NamedTuple):
    """What a graph explains, and the last token position that it knows of."""

    target: Target
    position: int


def explanandum(run: FrozenRun, place: StepPlace, name: TargetName) -> Explanandum:
    """What the graph of that name explains for a step.

    Args:
        run: of its chain.
        place: of the step.
        name: of `TARGETS`.
    """
    if name == "after":
        return Explanandum(TopLogits(), place.stop - 1)
    if name == "before":
        return Explanandum(TopLogits(), place.start - 1)
    at = weakest(run, place) if name == "weakest" else place.answer[0]
    token = int(run.ids[at])
    if name == "contrast":
        logits = run.logits[at - 1].clone()
        logits[token] = -float("inf")
        return Explanandum(LogitDifference(token, int(logits.argmax())), at - 1)
    return Explanandum(Logit(token), at - 1)


def weakest(run: FrozenRun, place: StepPlace) -> int:
    """Position of the step's token that had the least probability."""
    tokens = run.ids[place.start : place.stop, None]
    written = run.logits[place.start - 1 : place.stop - 1].log_softmax(-1).gather(1, tokens)
    return place.start + int(written.argmin())
