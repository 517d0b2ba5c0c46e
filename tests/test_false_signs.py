"""Few effects among many zeros: the directions that are called significant are right."""

import numpy as np
import pytest

from benchmarks import false_signs

pytestmark = pytest.mark.slow


def test_no_more_directions_are_false_than_is_stated():
    rows = np.array([false_signs.judge("normal", 0.05, seed) for seed in range(3)])
    false, stated, found, significant = rows.T
    assert significant.sum() > 150
    total = (stated * significant).sum()
    assert (false * significant).sum() <= total + 2 * np.sqrt(total)
    assert found.mean() > 0.45  # of all that are not zero; of large ones more than 0.8
