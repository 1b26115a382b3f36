"""Other answers for a flagged step, from as many tries whoever proposes them.

    suspects   what is accused of the answer, scaled by 0, .5 and 2 in turn (ours)
    features   the same with true features alone
    errors     the same with errors alone
    random     every change of `suspects` replaced by a matched random one
    resample   drawn from the model, at the same place
    likeliest  the next likeliest tokens: what resampling would find, without repeats

A try that gives the token that was there before proposes nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pellucid.core.errors import ConfigError
from pellucid.core.registry import Registry
from pellucid.verification.repair.replay import Edit, Replay
from pellucid.verification.repair.suspects import Accusation, Suspect, SuspectKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """How much may be tried, the same for every arm.

    Attributes:
        count: of tries for a step.
        verified: of different answers that are put to the judge.
        factors: that suspects are scaled by, in turn.
        temperature: of resampling.

    Raises:
        ConfigError: a number is out of range.
    """

    count: int = 64
    verified: int = 4
    factors: tuple[float, ...] = (0.0, 0.5, 2.0)
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if min(self.count, self.verified) < 1 or not self.factors or self.temperature <= 0:
            raise ConfigError(
                f"{self.count} tries, {self.verified} verified, factors {self.factors} and "
                f"temperature {self.temperature} make no sense; give numbers above 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One other answer.

    Attributes:
        token: its first token.
        edit: under which the model says it; None where the model itself does.
        suspect: what was changed, if anything.
        factor: by which it was scaled.
        number: of the first try that gave it.
        agreeing: how many tries gave it.
    """

    token: int
    edit: Edit | None
    suspect: Suspect | None
    factor: float | None
    number: int
    agreeing: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able, without the vectors."""
        return {
            "token": self.token,
            "suspect": None if self.suspect is None else self.suspect.to_json(),
            "factor": self.factor,
            "try": self.number,
            "agreeing": self.agreeing,
        }


Arm = Callable[[Replay, Accusation, Tries, torch.Generator], list["Try"]]


@dataclass(frozen=True, slots=True)
class Try:
    """One try and the token that it gave."""

    token: int
    edit: Edit | None = None
    suspect: Suspect | None = None
    factor: float | None = None


def _scaled(*kinds: SuspectKind, random: bool = False) -> Arm:
    def propose(
        replay: Replay, accusation: Accusation, tries: Tries, generator: torch.Generator
    ) -> list[Try]:
        chosen = accusation.of_kind(*kinds) if kinds else accusation
        pairs = [(each, factor) for each in chosen.suspects for factor in tries.factors]
        pairs = pairs[: tries.count]
        if not pairs:
            return []
        edits = [replay.edit(suspect, factor) for suspect, factor in pairs]
        if random:
            edits = [replay.random(edit, generator) for edit in edits]
        tokens = replay.outcomes(edits).argmax(-1).tolist()
        return [
            Try(token, edit, suspect, factor)
            for token, edit, (suspect, factor) in zip(tokens, edits, pairs, strict=True)
        ]

    return propose


def _resample(
    replay: Replay, accusation: Accusation, tries: Tries, generator: torch.Generator
) -> list[Try]:
    shares = (replay.logits.float() / tries.temperature).softmax(-1).cpu()
    drawn = torch.multinomial(shares, tries.count, replacement=True, generator=generator)
    return [Try(token) for token in drawn.tolist()]


def _likeliest(
    replay: Replay, accusation: Accusation, tries: Tries, generator: torch.Generator
) -> list[Try]:
    count = min(tries.count, len(replay.logits))
    return [Try(token) for token in replay.logits.topk(count).indices.tolist()]


ARMS: Registry[Arm] = Registry(
    "arm",
    {
        "suspects": _scaled(),
        "features": _scaled("feature"),
        "errors": _scaled("error", "layer"),
        "random": _scaled(random=True),
        "resample": _resample,
        "likeliest": _likeliest,
    },
)
"""Name -> function of the replay, the accusation, the tries and a generator."""


def proposals(
    arm: str,
    replay: Replay,
    accusation: Accusation,
    tries: Tries,
    *,
    written: int,
    seed: int = 0,
) -> list[Proposal]:
    """The different answers of an arm in the order in which its tries gave them.

    Args:
        arm: of `ARMS`.
        replay: of the chain up to the answer.
        accusation: of the step.
        tries: how many.
        written: the answer's first token as it was; it is no proposal.
        seed: of what is random.

    Raises:
        ConfigError: an unknown arm.
    """
    generator = torch.Generator().manual_seed(seed)
    made = ARMS[arm](replay, accusation, tries, generator)
    return list(_distinct(made, written))


def _distinct(made: list[Try], written: int) -> Iterator[Proposal]:
    tokens, seen = [each.token for each in made], {written}
    for number, each in enumerate(made):
        if each.token in seen:
            continue
        seen.add(each.token)
        yield Proposal(
            token=each.token,
            edit=each.edit,
            suspect=each.suspect,
            factor=each.factor,
            number=number,
            agreeing=tokens.count(each.token),
        )
