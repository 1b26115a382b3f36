"""Chains of thought in free text: what was asked, what was written, and where its steps are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStep:
    """One step of a chain in free text.

    Attributes:
        number: 0 for the first step.
        start, stop: half-open range of characters in the chain's text.
        right: whether it is right; None where nobody has said.
    """

    number: int
    start: int
    stop: int
    right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChain:
    """A chain in free text; what is in no step separates steps.

    Attributes:
        prompt: what stands before it, exactly as the model is to be shown it.
        text: what was written.
        steps: in order; their ranges do not overlap.
        unread: why it could not be cut into steps, None if it could.
    """

    prompt: str
    text: str
    steps: tuple[TextStep, ...]
    unread: str | None = None

    def step_text(self, step: TextStep) -> str:
        """The characters of a step."""
        return self.text[step.start : step.stop]

    @property
    def first_error(self) -> int | None:
        """Number of the first step that is known to be wrong, None if there is none."""
        return next((each.number for each in self.steps if each.right is False), None)

    def until_error(self) -> "TextChain":
        """The chain with its steps through the first wrong one (strict truncation)."""
        last = self.first_error
        return self if last is None else replace(self, steps=self.steps[: last + 1])

    def labelled(self, labels: Sequence[bool | None]) -> "TextChain":
        """The same chain, its steps labelled anew; one label a step."""
        pairs = zip(self.steps, labels, strict=True)
        return replace(self, steps=tuple(replace(step, right=right) for step, right in pairs))


def unread_chain(prompt: str, text: str, reason: str) -> TextChain:
    """A chain that could not be cut into steps, kept with the reason."""
    return TextChain(prompt=prompt, text=text, steps=(), unread=reason)
