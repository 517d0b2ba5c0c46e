"""Which cells are too large, node by node, in one environment or several."""

import numpy as np
import pytest

from nextpert.core.causal.dag_blr import require_squares


def test_squares_are_summed_over_environments_and_not_over_nodes():
    scatter, shifts = np.zeros((3, 3)), np.zeros((2, 3))
    means = np.full((2, 3), 2e144)  # 1 cell and 2: 1.2e289 of 1e290
    require_squares([[1], [2]], means, scatter, shifts)
    require_squares(3, means[0], scatter, shifts[0])
    means[:, 1] = 6e144  # 3.6e289 and 7.2e289, each allowed
    require_squares([[1], [0]], means, scatter, shifts)
    require_squares([[0], [2]], means, scatter, shifts)
    with pytest.raises(ValueError, match=r"\[1\] contain values too large"):
        require_squares([[1], [2]], means, scatter, shifts)


def test_a_shift_the_other_way_does_not_cancel_and_scatter_counts():
    with pytest.raises(ValueError, match=r"\[0\] contain values too large"):
        require_squares(1, np.array([8e144, 1]), np.zeros((2, 2)), np.array([-8e144, 0]))
    with pytest.raises(ValueError, match=r"\[1\] contain values too large"):
        require_squares(1, np.ones(2), np.diag([1e289, 2e290]), np.zeros(2))
