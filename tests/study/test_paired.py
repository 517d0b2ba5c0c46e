"""Paired differences: the exact sign-flip test, its interval, and the t test of many units."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp

from nextpert.study.paired import MAX_EXACT, differences_from, holm, paired_difference


def by_flips(values):
    """The two-sided p-value, from the sums of all patterns of signs."""
    flips = np.array(list(product((1, -1), repeat=len(values))))
    sums = np.abs(flips @ values)
    return (sums >= abs(values.sum()) - 1e-9).mean()


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
@pytest.mark.parametrize("kind", ["normal", "whole numbers"])
def test_p_value_is_that_of_all_sign_flips(n, kind):
    rng = np.random.default_rng(n)
    values = rng.normal(0.7, 1, n)
    values = np.round(2 * values) if kind == "whole numbers" else values
    assert paired_difference(values).p_value == pytest.approx(by_flips(values))
    assert paired_difference(values).mean == pytest.approx(values.mean())


def test_p_value_is_that_of_scipy():
    values = np.random.default_rng(3).normal(0.5, 1, 9)
    flips = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert paired_difference(values).p_value == pytest.approx(flips.pvalue)


@pytest.mark.parametrize("n", [6, 8, 12])
def test_the_interval_holds_the_centres_that_are_not_rejected(n):
    values = np.random.default_rng(n).normal(size=n) ** 3
    found = paired_difference(values)
    for end, outwards in ((found.low, -1), (found.high, 1)):
        assert by_flips(values - end - outwards * 1e-6) <= 0.05
        assert by_flips(values - end + outwards * 1e-6) > 0.05


@pytest.mark.parametrize("n", [7, 10])
def test_intervals_cover_and_tests_keep_their_level(n):
    rng = np.random.default_rng(0)
    found = [paired_difference(rng.standard_t(3, n)) for _ in range(1500)]
    inside = np.mean([each.low <= 0 <= each.high for each in found])
    rejected = np.mean([each.p_value <= 0.05 for each in found])
    assert inside == pytest.approx(1 - rejected)
    assert 0.945 - 0.011 < inside < 0.97


def test_many_units_have_a_t_test():
    values = np.random.default_rng(1).normal(0.3, 1, MAX_EXACT + 1)
    found, other = paired_difference(values), ttest_1samp(values, 0)
    assert found.p_value == pytest.approx(other.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(other.confidence_interval()))


def test_few_units_have_no_interval_and_equal_campaigns_no_difference():
    found = paired_difference([-1.0, -2.0, -1.5, -1.0, -3.0])
    assert (found.low, found.high, found.p_value) == (-np.inf, np.inf, 0.0625)
    assert found.in_words() == "-1.700"
    for n in (1, 8, 30):
        found = paired_difference(np.full(n, 1e-15))
        assert (found.mean, found.p_value) == (0, 1)
    assert paired_difference(np.arange(8.0)).in_words(1) == "+3.5 (+1.3 to +5.7)"


def test_holm():
    # By hand: 0.01 x 4, 0.02 x 3, 0.025 x 2 (raised to 0.06), 0.9.
    np.testing.assert_allclose(holm(np.array([0.025, 0.9, 0.01, 0.02])), [0.06, 0.9, 0.04, 0.06])


def test_strategies_are_compared_with_one_of_them():
    values = np.random.default_rng(0).normal([2.0, 0.0, 0.5], size=(9, 3))
    found = differences_from(values, 1)
    first, third = (paired_difference(values[:, j] - values[:, 1]) for j in (0, 2))
    assert found[0] == first._replace(p_value=2 * first.p_value)
    assert found[2] == third
    assert found[1].mean == 0
    assert np.isnan(found[1].p_value)
