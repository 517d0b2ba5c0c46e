"""The variance between guides of the controls, by which a search knows what they tell apart."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.search.context import ContextNodes


@pytest.mark.parametrize("n_guides", [2, 3, 12])
def test_it_takes_three_guides(n_guides):
    rng = np.random.default_rng(0)
    guide = np.repeat(np.arange(n_guides), 500)
    cells = rng.normal(size=(len(guide), 40)) + 0.5 * rng.normal(size=(n_guides, 40))[guide]
    screen = ScreenMoments.from_array(cells, guide, n_guides)
    nodes = ContextNodes(
        [],
        np.zeros((n_guides, 0), bool),
        np.zeros((n_guides, 0)),
        np.zeros(n_guides, np.int64),
        np.arange(n_guides),
        {},
    )
    found = nodes.guide_variance(screen, 40)
    assert found == (0.0 if n_guides < 3 else pytest.approx(0.25, rel=0.35))
