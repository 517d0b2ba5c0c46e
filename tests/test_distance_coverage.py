"""Intervals of distances where nothing happens: they were too far (equations 23, 30 and 31)."""

import numpy as np
import pytest

from benchmarks import distance_coverage


@pytest.fixture(scope="module")
def found():
    splits = [
        distance_coverage.asked(distance_coverage.Nothing(seed, 4, p=60, n_control=60), 12)
        for seed in (31, 32)
    ]
    return {kind: np.concatenate([one[kind] for one in splits]) for kind in splits[0]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", distance_coverage.KINDS)
def test_intervals_cover_distances_where_nothing_happens(found, kind):
    covered, width, _ = found[kind].T
    assert covered.mean() >= 0.82  # 0.00 and 0.05 before
    assert np.median(width) < 0.5  # of the squared error of the cells' means
