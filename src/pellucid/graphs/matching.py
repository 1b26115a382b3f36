"""Which features of two dictionaries correspond."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from pellucid.core.errors import GraphError
from pellucid.graphs.identity import FeatureMap


def match_features(
    similarity: Mapping[int, Float[np.ndarray, "first second"]], *, minimum: float = 0.5
) -> FeatureMap:
    """Pair the features of two dictionaries so that the sum of similarities is largest.

    The assignment is the Hungarian method's, each layer by itself.

    Args:
        similarity: for each layer the similarity of every feature of the first dictionary (rows)
            to every one of the second (columns), such as cosines of decoder rows.
        minimum: pairs less similar than this are left out.

    Returns:
        For `compare`: (layer, feature) of the second -> (layer, feature) of the first.

    Raises:
        GraphError: a matrix that is not two-dimensional or not finite.
    """
    pairs = {}
    for layer, matrix in similarity.items():
        if np.ndim(matrix) != 2 or not np.isfinite(matrix).all():
            raise GraphError(
                f"similarity of layer {layer} has shape {np.shape(matrix)} or values that are not "
                "finite; give a matrix of numbers, first dictionary by second"
            )
        rows, columns = linear_sum_assignment(matrix, maximize=True)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if matrix[row, column] >= minimum:
                pairs[int(layer), column] = (int(layer), row)
    return pairs
