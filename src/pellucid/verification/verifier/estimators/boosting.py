"""Boosted trees: the paper's own, and the histogram kind, which is faster."""

from abc import ABC
from typing import Any, ClassVar, Self, final

import numpy as np
from jaxtyping import Float64

from pellucid.verification.verifier.estimators.estimator import Arrays, Estimator
from pellucid.verification.verifier.estimators.trees import LEAF, Tree, Trees
from pellucid.verification.verifier.examples import Examples


class BoostedTrees(Estimator, ABC):
    """A sum of trees, however it was grown.

    Args:
        trees: the ensemble.
    """

    def __init__(self, trees: Trees) -> None:
        self.trees = trees

    def margin(self, x: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, " N"]:
        """Log-odds that each step is wrong, before calibration."""
        return self.trees(x)

    @property
    def base(self) -> float:
        """The margin before any column has spoken: its mean over the training steps."""
        return self.trees.base

    def contributions(self, x: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, "N C"]:
        """What each column added on the trees' paths; see `Trees.contributions`."""
        return self.trees.contributions(x)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for safetensors."""
        return self.trees.arrays()

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` gave, as an estimator again."""
        return cls(Trees.from_arrays(arrays))

    def settings(self) -> dict[str, Any]:
        """What it was fitted with: scikit-learn's defaults."""
        return {"trees": len(self.trees.roots)}


@final
class GradientBoosting(BoostedTrees):
    """scikit-learn's `GradientBoostingClassifier` with its defaults, as in the paper.

    100 trees of depth 3, learning rate .1, log loss; classes are not balanced.
    """

    name: ClassVar[str] = "boosting"

    @classmethod
    def fit(cls, examples: Examples, *, seed: int, like: Self | None = None) -> Self:
        """Grow the trees; there is nothing to choose."""
        from sklearn.ensemble import GradientBoostingClassifier

        model = GradientBoostingClassifier(random_state=seed)
        model.fit(examples.x, examples.wrong, sample_weight=examples.weights)
        rate = model.learning_rate
        trees = [
            Tree(
                feature=np.where(tree.children_left < 0, LEAF, tree.feature),
                threshold=tree.threshold,
                left=tree.children_left,
                right=tree.children_right,
                value=rate * tree.value[:, 0, 0],
                cover=tree.weighted_n_node_samples,
            )
            for tree in (each.tree_ for each in model.estimators_[:, 0])
        ]
        share = model.init_.class_prior_[1]
        start = float(np.log(share / (1 - share)))
        columns = examples.x.shape[1]
        return cls(Trees.of(trees, constant=start, columns=columns, single=True))


@final
class HistogramBoosting(BoostedTrees):
    """scikit-learn's `HistGradientBoostingClassifier` (LightGBM's algorithm) with its defaults.

    100 trees of up to 31 leaves of 20 steps or more, learning rate .1. Early stopping is off: its
    validation part would cut questions.
    """

    name: ClassVar[str] = "histogram"

    @classmethod
    def fit(cls, examples: Examples, *, seed: int, like: Self | None = None) -> Self:
        """Grow the trees; there is nothing to choose."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
        model.fit(examples.x, examples.wrong, sample_weight=examples.weights)
        trees = [
            Tree(
                feature=np.where(nodes["is_leaf"], LEAF, nodes["feature_idx"]),
                threshold=nodes["num_threshold"],
                left=nodes["left"],
                right=nodes["right"],
                value=nodes["value"],
                cover=nodes["count"].astype(np.float64),
            )
            for nodes in (each[0].nodes for each in model._predictors)
        ]
        start = float(np.ravel(model._baseline_prediction)[0])
        columns = examples.x.shape[1]
        return cls(Trees.of(trees, constant=start, columns=columns, single=False))
