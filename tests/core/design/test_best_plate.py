"""The plate that most probably holds the best, against all plates there are."""

import itertools

import numpy as np
import pytest

from nextpert.core.design.plate import best_plate, probable_plate


@pytest.mark.parametrize("seed", range(10))
def test_no_other_plate_holds_the_nearest_more_often(seed):
    rng = np.random.default_rng(seed)
    draws = rng.normal(rng.normal(size=7), np.exp(rng.normal(size=7)), (200, 7))
    nearest = draws.argmin(axis=1)

    def holds(plate):
        return np.isin(nearest, plate).mean()

    best = max(holds(plate) for plate in itertools.combinations(range(7), 3))
    assert holds(probable_plate(draws, 3)) == best


def test_what_all_share_tells_none_apart():
    rng = np.random.default_rng(0)
    shared = 100.0 * rng.normal(size=(500, 1))
    assert probable_plate(shared + np.array([3.0, 1.0, 2.0]), 2).tolist() == [1, 2]


def test_of_candidates_never_nearest_the_nearer_come_first():
    draws = np.array([[1.0, 8.0, 5.0, 6.0], [1.0, 4.0, 9.0, 5.0]])
    assert probable_plate(draws, 3).tolist() == [0, 3, 1]


@pytest.mark.parametrize(("size", "by_expectation"), [(1, 1), (2, 1), (3, 2), (4, 2), (7, 4)])
def test_half_by_expectation_and_the_rest_by_probability(size, by_expectation):
    rng = np.random.default_rng(size)
    draws = rng.normal(rng.normal(size=7), np.exp(rng.normal(size=7)), (200, 7))
    expected = rng.normal(size=7)
    plate = best_plate(expected, draws, size)
    assert len(set(plate.tolist())) == size
    first, rest = plate[:by_expectation], plate[by_expectation:]
    assert first.tolist() == sorted(range(7), key=expected.__getitem__)[:by_expectation]
    left = [j for j in range(7) if j not in first]
    nearest = draws[:, left].argmin(axis=1)
    chance = {j: (nearest == k).mean() for k, j in enumerate(left)}
    assert min((chance[j] for j in rest), default=1) >= max(
        (chance[j] for j in left if j not in rest), default=0
    )


def test_a_plate_larger_than_the_candidates_takes_all():
    draws = np.arange(6.0).reshape(2, 3)
    for size in (3, 5, 9):
        assert sorted(best_plate(draws[0], draws, size).tolist()) == [0, 1, 2]
        assert sorted(probable_plate(draws, size).tolist()) == [0, 1, 2]
    assert best_plate(draws[0, :0], draws[:, :0], 2).tolist() == []
    with pytest.raises(ValueError, match="size"):
        probable_plate(draws, 0)
