"""What one number of a fingerprint is: its name, what it measures, what else it may stand for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from pellucid.verification.fingerprints.measured import MeasuredGraph
from pellucid.verification.steps.place import ROLES

Stands = Literal["structure", "confidence", "length", "text"]
"""
What a column can be read off without a graph, in part or wholly. structure: it cannot. confidence:
from the model's probabilities or logits. length: from the number of tokens. text: from what the
step rewrote, since roles come from comparing two texts: a step that rewrites too much has more
tokens of the role.
"""
KINDS = ("feature", "error", "token")
"""Kinds of nodes that hold influence; biases are left out of shares."""
ROUNDS = 2
"""How often the labels of Weisfeiler and Lehman are refined."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One column, or one for each layer and role.

    Attributes:
        name: `family.name`; `{layer}`, `{role}` and other words in braces stand for
            all of them.
        text: what it is, and what it is where its part of the graph is empty.
        range: the values it may take.
        stands: what else it may be a stand-in for.
    """

    name: str
    text: str
    range: str = "0..1"
    stands: Stands = "structure"

    def columns(self, n_layers: int) -> Iterator[str]:
        """The names of its columns for a model of so many layers."""
        choices: dict[str, Sequence[str]] = {
            "kind": KINDS,
            "layer": [str(layer) for layer in range(n_layers)],
            "role": ROLES,
            "length": [str(edges) for edges in range(1, n_layers + 2)],
            "round": [str(number) for number in range(ROUNDS + 1)],
            "statistic": ("mean", "max", "std"),
        }
        used = [name for name in choices if f"{{{name}}}" in self.name]
        for values in product(*(choices[name] for name in used)):
            yield self.name.format(**dict(zip(used, values, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A group of columns that are measured together.

    Attributes:
        about: one line.
        definitions: of its columns.
        measure: gives all of them for a graph, finite.
    """

    about: str
    definitions: tuple[Definition, ...]
    measure: Callable[[MeasuredGraph], dict[str, float]]
