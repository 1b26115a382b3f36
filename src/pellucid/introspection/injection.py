"""A question and the vectors that are injected while it is read and answered."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pellucid.introspection.dialogue import Prompt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Injection:
    """A vector added to the tokens `start` to `stop` (None: to the end, answer included)."""

    vector: Float[Tensor, " d"]
    start: int
    stop: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """One row: what is read, and what is injected meanwhile."""

    prompt: Prompt
    injections: tuple[Injection, ...] = ()


def through_answer(prompt: Prompt, vector: Float[Tensor, " d"]) -> Injection:
    """From just before the trial's text through the whole answer (Lindsey 2025)."""
    return Injection(vector=vector, start=max(1, prompt.spans["trial"][0] - 1), stop=None)


def before_query(prompt: Prompt, vector: Float[Tensor, " d"]) -> Injection:
    """While the setting is read; removed before the question, which only the cache connects."""
    return Injection(vector=vector, start=prompt.spans["setting"][0], stop=prompt.spans["trial"][0])


def within(prompt: Prompt, part: str, vector: Float[Tensor, " d"]) -> Injection:
    """While a named part is read."""
    start, stop = prompt.spans[part]
    return Injection(vector=vector, start=start, stop=stop)
