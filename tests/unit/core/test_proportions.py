from itertools import product

import pytest
from scipy.stats import binom

from pellucid.core.errors import ConfigError
from pellucid.core.proportions import clopper_pearson, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 150), (3, 20), (10, 10), (1, 2)])
def test_clopper_pearson_inverts_the_binomial_tails(successes: int, trials: int) -> None:
    found = clopper_pearson(successes, trials)
    if successes:
        assert binom.sf(successes - 1, trials, found.low) == pytest.approx(0.025, rel=1e-6)
    else:
        assert found.low == 0.0
    if successes < trials:
        assert binom.cdf(successes, trials, found.high) == pytest.approx(0.025, rel=1e-6)
    else:
        assert found.high == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(3, 20), (10, 10), (0, 5), (77, 150)])
def test_wilson_solves_its_quadratic(successes: int, trials: int) -> None:
    found, z = wilson(successes, trials), 1.959963984540054
    for end in (found.low, found.high):
        if 0 < end < 1:
            error = abs(successes / trials - end)
            assert error == pytest.approx(z * (end * (1 - end) / trials) ** 0.5, rel=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_coverage_of_both_is_near_or_above_nominal_by_enumeration() -> None:
    trials = 40
    for make, share in product((clopper_pearson, wilson), (0.1, 0.3, 0.5)):
        covered = sum(
            binom.pmf(k, trials, share)
            for k in range(trials + 1)
            if make(k, trials).low <= share <= make(k, trials).high
        )
        assert covered >= (0.95 if make is clopper_pearson else 0.92)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 4)])
def test_no_share_of_nothing(successes: int, trials: int) -> None:
    with pytest.raises(ConfigError, match=f"{successes} of {trials} is no share"):
        wilson(successes, trials)
