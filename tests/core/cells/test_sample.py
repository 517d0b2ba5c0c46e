"""Samples against the cells themselves."""

from __future__ import annotations

import numpy as np
import pytest

from nextpert.core.cells.sample import Sample


def test_a_sum_of_samples_is_the_sample_of_all_cells():
    x = np.random.default_rng(0).normal(1e3, 1, size=(30, 4))
    parts = [Sample.of(x[first:last]) for first, last in [(0, 0), (0, 1), (1, 20), (20, 30)]]
    found = parts[0] + parts[1] + parts[2] + parts[3]
    assert found.n == 30
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
    assert found.spread == pytest.approx(x.var(axis=0).sum() * 30, rel=1e-9)
    assert found.variance_of_mean == pytest.approx(x.var(axis=0, ddof=1).sum() / 30, rel=1e-9)
    assert np.isnan(parts[1].variance_of_mean)
    assert parts[1].distance(x[0] + [2, 0, 0, 0]) == pytest.approx(4)


def test_the_distance_of_a_sample_is_unbiased():
    rng, target = np.random.default_rng(0), np.array([1.0, 0.0])
    found = [Sample.of(rng.normal(size=(5, 2))).distance(target) for _ in range(4000)]
    assert abs(np.mean(found) - 1) < 4 * np.std(found) / np.sqrt(len(found))


def test_values_too_large_to_be_squared_are_named():
    with pytest.raises(ValueError, match=r"Columns \[1\] hold values too large"):
        Sample.of(np.array([[0.0, 1e200], [1.0, -1e200]]))
