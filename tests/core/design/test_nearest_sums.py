"""Nearest combinations against a list of all of them."""

import itertools

import numpy as np
import pytest

from nextpert.core.design import nearest_sums as module
from nextpert.core.design.nearest_sums import nearest_sums


def listed(effects, wanted, size):
    sets = list(itertools.combinations(range(len(effects)), size))
    distance = [((effects[list(each)].sum(axis=0) - wanted) ** 2).sum() for each in sets]
    order = np.argsort(distance, kind="stable")
    return np.array(sets)[order], np.array(distance)[order]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("chunk", [7, 10_000])
def test_singles_and_pairs_are_those_of_the_whole_list(size, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    rng = np.random.default_rng(size)
    effects, wanted = rng.normal(size=(12, 5)), rng.normal(size=5) * 2
    sets, distance = listed(effects, wanted, size)
    found = nearest_sums(effects, wanted, size, 9)
    np.testing.assert_array_equal(found.members, sets[:9])
    np.testing.assert_allclose(found.distance, distance[:9])
    # Fewer combinations than asked for: all.
    assert len(nearest_sums(effects, wanted, size, 1000).members) == len(sets)


@pytest.mark.parametrize("size", [3, 4])
def test_a_beam_wide_enough_is_exact_and_a_narrow_one_is_near(size):
    rng = np.random.default_rng(size)
    effects, wanted = rng.normal(size=(11, 6)), 3 * rng.normal(size=6)
    sets, distance = listed(effects, wanted, size)
    found = nearest_sums(effects, wanted, size, 5, width=10_000)
    np.testing.assert_array_equal(found.members, sets[:5])
    np.testing.assert_allclose(found.distance, distance[:5])
    narrow = nearest_sums(effects, wanted, size, 1, width=5)
    assert distance[0] - 1e-9 <= narrow.distance[0] <= distance[20]
