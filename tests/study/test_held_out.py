"""How guides of a perturbation are divided between two halves."""

import numpy as np

from nextpert.study.held_out import _deal


def test_guides_are_divided_if_two_have_enough_cells():
    group, guide = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 4])
    half = _deal(group, guide, np.array([100, 100, 2, 100, 2]), np.random.default_rng(0))
    assert sorted(half[:2]) == [0, 1]  # the two large guides are not in one half
    assert half[2] in (0, 1)
    assert (half[3:] == -1).all()  # with one large guide, cells are divided
