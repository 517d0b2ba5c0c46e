"""The plate that most probably contains the best, and the nearest pairs, against all there are."""

import itertools

import numpy as np
import pytest

from nextpert.core.design import plate as module
from nextpert.core.design.plate import best_order, dunnett_controls, nearest_pairs


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_half_by_expectation_and_the_rest_by_probability(size):
    rng, half = np.random.default_rng(size), (size + 1) // 2
    draws = rng.normal(rng.normal(size=7), np.exp(rng.normal(size=7)), (200, 7))
    expected = rng.normal(size=7)
    order, probability = best_order(expected, draws, size)
    assert sorted(order) == list(range(7))
    first, plate = order[:half].tolist(), order[half:size]
    assert first == sorted(range(7), key=expected.__getitem__)[:half]
    assert np.flatnonzero(np.isnan(probability)).tolist() == sorted(first)
    # No other candidates contain the nearest of the rest more often.
    left = [j for j in range(7) if j not in first]
    nearest = np.array(left, int)[draws[:, left].argmin(axis=1)] if left else np.zeros(0)
    contains = [
        np.isin(nearest, each).mean() for each in itertools.combinations(left, size - half) if left
    ]
    if len(plate):
        assert np.isin(nearest, plate).mean() == max(contains)
        assert probability[plate].sum() == pytest.approx(max(contains))


def test_what_all_share_distinguishes_none_and_ties_go_by_the_mean():
    shared = 100.0 * np.random.default_rng(0).normal(size=(500, 1))
    draws = shared + np.array([0.0, 3.0, 1.0, 2.0])
    assert best_order(draws.mean(axis=0), draws, 1)[0].tolist() == [0, 2, 3, 1]
    empty = best_order(draws[0, :0], draws[:, :0], 2)
    assert [len(each) for each in empty] == [0, 0]
    with pytest.raises(ValueError, match="size"):
        best_order(draws[0], draws, 0)


@pytest.mark.parametrize("block", [5, 10_000])
def test_pairs_are_those_of_the_whole_list(block, monkeypatch):
    monkeypatch.setattr(
        module, "in_blocks", lambda n, _: [slice(k, k + block) for k in range(0, n, block)]
    )
    rng = np.random.default_rng(2)
    effects, change = rng.normal(size=(12, 5)), rng.normal(size=5) * 2
    pairs = sorted(
        itertools.combinations(range(12), 2),
        key=lambda pair: ((effects[list(pair)].sum(axis=0) - change) ** 2).sum(),
    )
    np.testing.assert_array_equal(nearest_pairs(effects, change, 9), pairs[:9])
    np.testing.assert_array_equal(nearest_pairs(effects, change, 1000), pairs)  # fewer: all


@pytest.mark.parametrize("k", [1, 4, 9])
def test_controls_make_differences_most_precise(k):
    def variance(m):
        return k / (1000 - m) + 1 / m

    best = min(range(1, 1000), key=variance)
    assert dunnett_controls(1000, k) == pytest.approx(best, abs=1)
