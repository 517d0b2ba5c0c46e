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


def test_truths_above_0_are_also_counted_alone():
    covered, truth = [1, 1, 0, 1], [0, 0, 1, 2]
    one = np.column_stack([covered, np.ones(4), truth]).astype(float)
    nothing = np.column_stack([np.ones(4), np.ones(4), np.zeros(4)])
    for splits, counts, coverage in (
        ([one], 2, "0.50"),
        ([one, nothing], 2, "0.50"),
        ([nothing], 0, "-"),
    ):
        by_kind = [dict.fromkeys(distance_coverage.KINDS, split) for split in splits]
        for row in distance_coverage.rows_of("screen", 10, by_kind):
            told = dict(zip(distance_coverage.HEAD, row, strict=True))
            assert (told["above 0"], told["coverage of these"]) == (counts, coverage)
