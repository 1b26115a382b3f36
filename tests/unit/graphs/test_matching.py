import numpy as np
import pytest

from pellucid.core.errors import GraphError
from pellucid.graphs.matching import match_features


def test_features_are_matched_by_similarity() -> None:
    rng = np.random.default_rng(0)
    permutation = rng.permutation(20)
    noise = rng.uniform(-0.3, 0.3, (20, 20))
    matrix = noise.copy()
    matrix[permutation, np.arange(20)] = 0.9
    matrix[permutation[3], 3] = 0.1
    found = match_features({2: matrix}, minimum=0.5)
    assert found == {(2, c): (2, int(permutation[c])) for c in range(20) if c != 3}


@pytest.mark.parametrize("matrix", [np.zeros(3), np.array([[np.nan]])])
def test_a_bad_similarity_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(GraphError, match="similarity of layer 4"):
        match_features({4: matrix})


def test_two_features_that_are_one_beat_two_that_are_half() -> None:
    """Hungarian, not greedy: the best sum."""
    found = match_features({0: np.array([[0.9, 0.8], [0.8, 0.0]])}, minimum=0)
    assert found == {(0, 0): (0, 1), (0, 1): (0, 0)}
