"""Shares and histogram of how often features fire."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.harvest.density import DENSITY_EDGES, dense_share, density_histogram


def test_a_feature_is_dense_above_a_tenth_of_the_tokens_not_at_it() -> None:
    assert dense_share(torch.tensor([0, 1, 100, 101, 1000]), 1000) == 2 / 5


def test_features_fall_into_the_bin_of_their_density() -> None:
    fires = torch.tensor([0, 0, 1, 10, 31, 32, 1_000_000, 999_999])
    histogram = density_histogram(fires, 1_000_000)
    # 10^-6 opens the first bin, 10^-5 the third, 10^-4.5 is 31.6 in a million.
    assert histogram[0] == 1
    assert histogram[2] == 2
    assert histogram[3] == 1
    assert histogram[-1] == 2
    assert sum(histogram) == 6


def test_densities_below_the_lowest_edge_are_in_the_first_bin() -> None:
    assert density_histogram(torch.tensor([1]), 10**8)[0] == 1


@settings(max_examples=30, deadline=None)
@given(fires=st.lists(st.integers(0, 5_000), min_size=1, max_size=50))
def test_every_living_feature_is_in_one_bin(fires: list[int]) -> None:
    histogram = density_histogram(torch.tensor(fires), 5_000)
    assert len(histogram) == len(DENSITY_EDGES) - 1
    assert sum(histogram) == sum(count > 0 for count in fires)
