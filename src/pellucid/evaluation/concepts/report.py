"""What was found about concepts and the features that stand for them."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One concept and its features.

    Attributes:
        kind: `hidden`, `concept` or `role`: which part of a token's label.
        value: its value there.
        tokens: of the text measured.
        feature: the feature with the best F1.
        f1: its F1.
        features: how many features share the concept.
        absorbed: share of the concept's tokens at which that feature is absorbed; None where it
            does not stand for the concept.
    """

    kind: str
    value: str
    tokens: int
    feature: int
    f1: float
    features: int
    absorbed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptFigures:
    """Means over concepts.

    Attributes:
        f1: of the best feature of each concept.
        together: F1 of all features that share it, as one: active where any of them is.
        features: how many share it.
        represented: share of concepts whose best feature has an F1 of `REPRESENTED_FROM` or more
            on the text it was chosen on.
        absorbed: share of the tokens of a represented concept at which its best feature is
            absorbed; 0 where no concept is represented.
        intervals: of `f1`, `together` and `absorbed`: 95%, from resampling documents.
    """

    f1: float
    together: float
    features: float
    represented: float
    absorbed: float
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptReport:
    """One dictionary, beside its controls.

    Attributes:
        layer: its layer.
        figures: its own.
        random: a dictionary of random directions of the same size, as many active a token.
        shuffled: the dictionary, with the labels of all tokens in a random order.
        concepts: one by one.
    """

    layer: int
    figures: ConceptFigures
    random: ConceptFigures
    shuffled: ConceptFigures
    concepts: list[Concept]
