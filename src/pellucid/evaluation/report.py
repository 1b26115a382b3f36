"""What an evaluation found."""

from dataclasses import asdict, dataclass, field
from typing import Any

from pellucid.evaluation.concepts.report import ConceptReport
from pellucid.evaluation.duplicates import Duplicates
from pellucid.harvest.density import DENSITY_EDGES
from pellucid.harvest.fidelity import LayerFidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The model's predictions with some MLPs replaced, beside the original's.

    Attributes:
        layers: the layers replaced.
        ce: cross-entropy in nats a token.
        kl: KL(original || replaced) in nats a token.
        top1: share of positions with the same most likely token.
        loss_recovered: (CE_ablated - CE) / (CE_ablated - CE_original), where the MLPs of the same
            layers are ablated to their means.
        loss_recovered_zero: the same with zero ablation; None where it was not measured.
        intervals: figure -> 95% bootstrap interval over documents.
    """

    layers: list[int]
    ce: float
    kl: float
    top1: float
    loss_recovered: float
    loss_recovered_zero: float | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Predictions with all MLPs replaced, with each alone, and with the first 1, 2, ..."""

    all: Prediction
    per_layer: list[Prediction]
    cumulative: list[Prediction]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFigures:
    """Share of right answers on one task of the specimen, before and after replacement."""

    original: float
    replaced: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything `evaluate` measured.

    Attributes:
        tokens: tokens at which dictionaries were measured (special ones left out).
        documents: documents they came from.
        layers: fidelity of each dictionary.
        duplicates: near-duplicates of each dictionary, in the same order.
        baselines_fitted_apart: whether the baselines were fitted on other text than this; a source
            of very few documents leaves none to hold out.
        predictions: positions at which predictions were scored.
        original_ce: cross-entropy of the unmodified model; None, as all that follows is empty,
            when the dictionaries do not stand in for MLPs.
        replacement: predictions with dictionaries in place of MLPs.
        baselines: `zero`, `mean`, `linear` and `random` in place of all the same MLPs.
        tasks: task figures, on the specimen only.
        concepts: how features stand for the corpus's concepts, by layer; on the specimen only, if
            asked for.
    """

    tokens: int
    documents: int
    layers: list[LayerFidelity]
    duplicates: list[Duplicates]
    baselines_fitted_apart: bool
    predictions: int = 0
    original_ce: float | None = None
    replacement: Replacement | None = None
    baselines: dict[str, Prediction] = field(default_factory=dict)
    tasks: dict[str, TaskFigures] = field(default_factory=dict)
    concepts: list[ConceptReport] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values, under the keys that the command line documents."""
        record = asdict(self)
        return record | {
            "original": {"ce": record.pop("original_ce")},
            "density_edges": list(DENSITY_EDGES),
            "layers": [
                layer.to_json() | {"duplicates": duplicates}
                for layer, duplicates in zip(self.layers, record.pop("duplicates"), strict=True)
            ],
        }
