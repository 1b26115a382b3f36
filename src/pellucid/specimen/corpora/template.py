"""Sentences with named slots: the common form of the facts, stories and instructions."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pellucid.specimen.labels import LabelledToken, labelled

Slots = Mapping[str, LabelledToken]
_NO_MEANINGS: Mapping[str, tuple[str, str]] = MappingProxyType({})


class Template:
    """A sentence such as `the {relation} of the state/bridge containing {place} is {answer} .`

    `{name}` is a slot; `word/role` is a fixed word whose label has that role; any other word is
    fixed and has no role. `meanings` gives roles their (concept, hidden); without it a fixed
    word's concept is the word.
    """

    def __init__(
        self, task: str, text: str, meanings: Mapping[str, tuple[str, str]] = _NO_MEANINGS
    ) -> None:
        self._parts: list[str | LabelledToken] = []
        for piece in text.split():
            if piece.startswith("{"):
                self._parts.append(piece[1:-1])
            else:
                word, _, role = piece.partition("/")
                concept, hidden = meanings.get(role, (word if role else "", ""))
                self._parts.append(labelled(word, task, role, concept, hidden))

    def render(self, slots: Slots) -> list[LabelledToken]:
        """The sentence with every slot filled; a missing slot raises KeyError."""
        return [slots[part] if isinstance(part, str) else part for part in self._parts]

    def words(self) -> Iterator[str]:
        """The fixed words."""
        return (part.word for part in self._parts if isinstance(part, LabelledToken))
